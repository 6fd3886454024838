package lanyardtest

import (
	"testing"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
)

// Namespace makes a namespace with a name of its own and returns the name. It is there until the authority ends.
func (a *Authority) Namespace(t testing.TB) string {
	t.Helper()
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "test-"}}
	made, err := a.client.CoreV1().Namespaces().Create(t.Context(), namespace, metav1.CreateOptions{})
	if err != nil {
		t.Fatalf("create namespace: %v", err)
	}
	return made.Name
}

// CreateServiceAccount makes a service account, which has no permissions until it is given some.
func (a *Authority) CreateServiceAccount(t testing.TB, namespace, name string) *corev1.ServiceAccount {
	t.Helper()
	account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: name}}
	made, err := a.client.CoreV1().ServiceAccounts(namespace).Create(t.Context(), account, metav1.CreateOptions{})
	if err != nil {
		t.Fatalf("create service account %s/%s: %v", namespace, name, err)
	}
	return made
}

// Grant gives an account these rules in its own namespace, through a Role and a RoleBinding with generated names.
func (a *Authority) Grant(t testing.TB, namespace, account string, rules ...rbacv1.PolicyRule) {
	t.Helper()
	generated := metav1.ObjectMeta{GenerateName: account + "-"}
	rbac := a.client.RbacV1()
	role, err := rbac.Roles(namespace).Create(t.Context(), &rbacv1.Role{ObjectMeta: generated, Rules: rules}, metav1.CreateOptions{})
	if err != nil {
		t.Fatalf("create role for %s/%s: %v", namespace, account, err)
	}
	binding := &rbacv1.RoleBinding{
		ObjectMeta: generated,
		Subjects:   []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Namespace: namespace, Name: account}},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: role.Name},
	}
	if _, err := rbac.RoleBindings(namespace).Create(t.Context(), binding, metav1.CreateOptions{}); err != nil {
		t.Fatalf("bind role for %s/%s: %v", namespace, account, err)
	}
}

// Token returns a new token of the account, good for an hour and for the audiences, or for the authority itself if
// none is given.
func (a *Authority) Token(t testing.TB, namespace, account string, audiences ...string) string {
	t.Helper()
	return a.TokenFor(t, namespace, account, authenticationv1.TokenRequestSpec{Audiences: audiences})
}

// TokenFor is Token with everything that can be asked for: the lifetime and the object the token is bound to.
func (a *Authority) TokenFor(t testing.TB, namespace, account string, spec authenticationv1.TokenRequestSpec) string {
	t.Helper()
	request := &authenticationv1.TokenRequest{Spec: spec}
	issued, err := a.client.CoreV1().ServiceAccounts(namespace).CreateToken(t.Context(), account, request, metav1.CreateOptions{})
	if err != nil {
		t.Fatalf("create token of %s/%s: %v", namespace, account, err)
	}
	return issued.Status.Token
}

// As returns the client configuration of the account, with a new token: what code that runs as this account has.
func (a *Authority) As(t testing.TB, namespace, account string) *rest.Config {
	t.Helper()
	config := rest.AnonymousClientConfig(a.config)
	config.BearerToken = a.Token(t, namespace, account)
	return config
}
