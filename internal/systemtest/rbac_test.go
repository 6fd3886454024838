// Promise: what RBAC allows and refuses is decided by the policy of this moment, in Kubernetes' words.

package systemtest

import (
	"net/http"
	"strings"
	"testing"

	authorizationv1 "k8s.io/api/authorization/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
)

var readConfigMaps = rbacv1.PolicyRule{APIGroups: []string{""}, Resources: []string{"configmaps"}, Verbs: []string{"get", "list", "watch"}}

// TestGrantsTakeEffectAtOnce changes each kind of policy object several times, and sends a request after each change.
func TestGrantsTakeEffectAtOnce(t *testing.T) {
	t.Parallel()
	a := authority(t)
	namespace, rbac := a.Namespace(t), a.Client().RbacV1()
	a.CreateServiceAccount(t, namespace, "asker")
	asker := bearer(t, a.Config(), a.Token(t, namespace, "asker"))
	expect := func(round int, code int, after string) {
		t.Helper()
		if got := asker.get(t, "/api/v1/namespaces/"+namespace+"/configmaps"); got.code != code {
			t.Fatalf("round %d, after %s: %d, want %d", round, after, got.code, code)
		}
	}
	subjects := []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Namespace: namespace, Name: "asker"}}
	meta, none := metav1.ObjectMeta{Name: namespace}, metav1.DeleteOptions{}
	ref := func(kind string) rbacv1.RoleRef {
		return rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: kind, Name: namespace}
	}
	role := &rbacv1.Role{ObjectMeta: meta, Rules: []rbacv1.PolicyRule{readConfigMaps}}
	_, err := rbac.ClusterRoles().Create(t.Context(), &rbacv1.ClusterRole{ObjectMeta: meta, Rules: role.Rules}, metav1.CreateOptions{})
	must(t, err)
	expect(0, http.StatusForbidden, "nothing")
	for round := range 15 {
		_, err = rbac.Roles(namespace).Create(t.Context(), role, metav1.CreateOptions{})
		must(t, err)
		_, err = rbac.RoleBindings(namespace).Create(t.Context(), &rbacv1.RoleBinding{ObjectMeta: meta, Subjects: subjects, RoleRef: ref("Role")}, metav1.CreateOptions{})
		must(t, err)
		expect(round, http.StatusOK, "a RoleBinding")
		_, err = rbac.Roles(namespace).Update(t.Context(), &rbacv1.Role{ObjectMeta: meta}, metav1.UpdateOptions{})
		must(t, err)
		expect(round, http.StatusForbidden, "the Role lost its rules")
		_, err = rbac.Roles(namespace).Update(t.Context(), role, metav1.UpdateOptions{})
		must(t, err)
		expect(round, http.StatusOK, "the Role got its rules back")
		must(t, rbac.Roles(namespace).Delete(t.Context(), namespace, none))
		expect(round, http.StatusForbidden, "the Role was deleted")
		must(t, rbac.RoleBindings(namespace).Delete(t.Context(), namespace, none))

		_, err = rbac.RoleBindings(namespace).Create(t.Context(), &rbacv1.RoleBinding{ObjectMeta: meta, Subjects: subjects, RoleRef: ref("ClusterRole")}, metav1.CreateOptions{})
		must(t, err)
		expect(round, http.StatusOK, "a RoleBinding to a ClusterRole")
		must(t, rbac.RoleBindings(namespace).DeleteCollection(t.Context(), none, metav1.ListOptions{}))
		expect(round, http.StatusForbidden, "the collection of bindings was deleted")

		_, err = rbac.ClusterRoleBindings().Create(t.Context(), &rbacv1.ClusterRoleBinding{ObjectMeta: meta, Subjects: subjects, RoleRef: ref("ClusterRole")}, metav1.CreateOptions{})
		must(t, err)
		expect(round, http.StatusOK, "a ClusterRoleBinding")
		must(t, rbac.ClusterRoleBindings().Delete(t.Context(), namespace, none))
		expect(round, http.StatusForbidden, "the ClusterRoleBinding was deleted")
	}
}

func TestForbiddenMessagesAreThoseOfKubernetes(t *testing.T) {
	t.Parallel()
	a := authority(t)
	namespace := a.Namespace(t)
	a.CreateServiceAccount(t, namespace, "asker")
	asker := bearer(t, a.Config(), a.Token(t, namespace, "asker"))
	user := `User "system:serviceaccount:` + namespace + `:asker"`
	for _, tt := range []struct{ method, path, want string }{
		{"GET", "/api/v1/namespaces/" + namespace + "/configmaps", `configmaps is forbidden: ` + user + ` cannot list resource "configmaps" in API group "" in the namespace "` + namespace + `"`},
		{"GET", "/api/v1/namespaces/" + namespace + "/secrets/x", `secrets "x" is forbidden: ` + user + ` cannot get resource "secrets" in API group "" in the namespace "` + namespace + `"`},
		{"GET", "/api/v1/nodes", `nodes is forbidden: ` + user + ` cannot list resource "nodes" in API group "" at the cluster scope`},
		{"DELETE", "/apis/rbac.authorization.k8s.io/v1/clusterroles/admin", `clusterroles.rbac.authorization.k8s.io "admin" is forbidden: ` + user + ` cannot delete resource "clusterroles" in API group "rbac.authorization.k8s.io" at the cluster scope`},
		{"POST", "/api/v1/namespaces/" + namespace + "/serviceaccounts/default/token", `serviceaccounts "default" is forbidden: ` + user + ` cannot create resource "serviceaccounts/token" in API group "" in the namespace "` + namespace + `"`},
		{"GET", "/metrics", `forbidden: ` + user + ` cannot get path "/metrics"`},
	} {
		got := asker.do(t, tt.method, tt.path, nil)
		s := got.status(t)
		if got.code != http.StatusForbidden || s.Reason != metav1.StatusReasonForbidden || s.Message != tt.want {
			t.Errorf("%s %s: %s\nwant %s", tt.method, tt.path, got, tt.want)
		}
	}
}

func TestAnonymousRequests(t *testing.T) {
	t.Parallel()
	a := authority(t)
	anonymous := bearer(t, a.Config(), "")
	for _, path := range []string{"/livez", "/readyz", "/healthz", "/version", "/.well-known/openid-configuration", "/openid/v1/jwks"} {
		if got := anonymous.get(t, path); got.code != http.StatusOK {
			t.Errorf("GET %s: %s", path, got)
		}
	}
	for _, path := range []string{
		"/", "/api", "/apis", "/api/v1", "/openapi/v2", "/openapi/v3", "/metrics", "/api/v1/namespaces", "/livez/etcd", "/readyz/etcd",
		"/api/v1/namespaces/default/secrets", "/debug/pprof/", "/logs", "/nowhere", "/version/../api", "//api", "/livez/../metrics",
	} {
		if got := anonymous.get(t, path); got.code != http.StatusForbidden || !strings.Contains(got.status(t).Message, `User "system:anonymous" cannot`) {
			t.Errorf("GET %s: %s", path, got)
		}
	}
	for _, path := range []string{whoAmIPath, "/api/v1/namespaces", "/livez", "/openid/v1/jwks", "/apis/authentication.k8s.io/v1/tokenreviews"} {
		if got := anonymous.do(t, http.MethodPost, path, `{}`); got.code != http.StatusForbidden {
			t.Errorf("POST %s: %s", path, got)
		}
	}
}

// selfAccessReview creates a SelfSubjectAccessReview.
func selfAccessReview(t *testing.T, config *rest.Config, spec authorizationv1.SelfSubjectAccessReviewSpec) *authorizationv1.SelfSubjectAccessReview {
	t.Helper()
	review, err := clientFor(t, config).AuthorizationV1().SelfSubjectAccessReviews().Create(t.Context(), &authorizationv1.SelfSubjectAccessReview{Spec: spec}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return review
}

func TestDecisionsNameTheirBinding(t *testing.T) {
	t.Parallel()
	a := authority(t)
	namespace, rbac := a.Namespace(t), a.Client().RbacV1()
	a.CreateServiceAccount(t, namespace, "viewer")
	binding := &rbacv1.RoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: "looks"}, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "view"},
		Subjects: []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Namespace: namespace, Name: "viewer"}},
	}
	if _, err := rbac.RoleBindings(namespace).Create(t.Context(), binding, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	config := a.As(t, namespace, "viewer")
	for resource, allowed := range map[string]bool{"pods": true, "serviceaccounts": true, "secrets": false, "rolebindings": false} {
		got := selfAccessReview(t, config, authorizationv1.SelfSubjectAccessReviewSpec{ResourceAttributes: &authorizationv1.ResourceAttributes{Namespace: namespace, Resource: resource, Verb: "list"}})
		want := ""
		if allowed {
			want = `RBAC: allowed by RoleBinding "looks/` + namespace + `" of ClusterRole "view" to ServiceAccount "viewer/` + namespace + `"`
		}
		if got.Status.Allowed != allowed || got.Status.Reason != want {
			t.Errorf("list %s: %+v, want %t %q", resource, got.Status, allowed, want)
		}
	}
}

// TestGrantsNeedTheGrantedRights checks that an account which may write roles and bindings cannot give itself more rights.
func TestGrantsNeedTheGrantedRights(t *testing.T) {
	t.Parallel()
	a := authority(t)
	namespace := a.Namespace(t)
	a.CreateServiceAccount(t, namespace, "climber")
	a.Grant(t, namespace, "climber", rbacv1.PolicyRule{APIGroups: []string{rbacv1.GroupName}, Resources: []string{"roles", "rolebindings"}, Verbs: []string{"*"}}, readConfigMaps)
	// The verb "*" includes bind and escalate, which would permit the grants, so it is replaced.
	roles, err := a.Client().RbacV1().Roles(namespace).List(t.Context(), metav1.ListOptions{})
	if err != nil || len(roles.Items) != 1 {
		t.Fatal(roles, err)
	}
	roles.Items[0].Rules[0].Verbs = []string{"create", "update", "patch", "get"}
	if _, err := a.Client().RbacV1().Roles(namespace).Update(t.Context(), &roles.Items[0], metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	rbac := clientFor(t, a.As(t, namespace, "climber")).RbacV1()
	me := []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Namespace: namespace, Name: "climber"}}
	binding := func(name, role string) *rbacv1.RoleBinding {
		return &rbacv1.RoleBinding{ObjectMeta: metav1.ObjectMeta{Name: name}, Subjects: me, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: role}}
	}
	if _, err := rbac.RoleBindings(namespace).Create(t.Context(), binding("up", "cluster-admin"), metav1.CreateOptions{}); !apierrors.IsForbidden(err) {
		t.Errorf("bind cluster-admin: %v, want forbidden", err)
	}
	role := &rbacv1.Role{ObjectMeta: metav1.ObjectMeta{Name: "mine"}, Rules: []rbacv1.PolicyRule{{APIGroups: []string{""}, Resources: []string{"secrets"}, Verbs: []string{"get"}}}}
	if _, err := rbac.Roles(namespace).Create(t.Context(), role, metav1.CreateOptions{}); !apierrors.IsForbidden(err) || !strings.Contains(err.Error(), "attempting to grant RBAC permissions not currently held") {
		t.Errorf("write a role with rights that the account lacks: %v, want forbidden", err)
	}
	role.Rules = []rbacv1.PolicyRule{readConfigMaps}
	if _, err := rbac.Roles(namespace).Create(t.Context(), role, metav1.CreateOptions{}); err != nil {
		t.Errorf("write a role with rights that the account has: %v", err)
	}
}

// TestMetadataOfRolesIsGuarded checks that an account which may write cluster roles, but holds none of their rules, cannot
// keep default policy from being updated or remove an aggregation. Changes that the garbage collector makes are permitted.
func TestMetadataOfRolesIsGuarded(t *testing.T) {
	t.Parallel()
	a := authority(t)
	namespace := a.Namespace(t)
	a.CreateServiceAccount(t, namespace, "scribe")
	bindClusterRole(t, a.Client(), namespace+"-scribe", accountSubject(namespace, "scribe"), rbacv1.PolicyRule{
		APIGroups: []string{rbacv1.GroupName}, Resources: []string{"clusterroles", "clusterrolebindings"}, Verbs: []string{"get", "update", "patch"},
	})
	bindClusterRole(t, a.Client(), namespace+"-owned", accountSubject(namespace, "owned"), readConfigMaps)
	rbac := clientFor(t, a.As(t, namespace, "scribe")).RbacV1()
	const freeze = `{"metadata":{"annotations":{"rbac.authorization.kubernetes.io/autoupdate":"false"}}}`
	for _, test := range []struct{ name, patch, want string }{
		{"cluster-admin", freeze, "attempting to grant RBAC permissions not currently held"},
		{"cluster-admin", `{"metadata":{"labels":{"kubernetes.io/bootstrapping":null}}}`, "attempting to grant"},
		{"view", freeze, "must have cluster-admin privileges"},
		{"view", `{"aggregationRule":null}`, "must have cluster-admin privileges"},
		{"system:basic-user", `{"metadata":{"labels":{}}}`, ""},
		{namespace + "-owned", `{"metadata":{"ownerReferences":[{"apiVersion":"v1","kind":"Namespace","name":"default","uid":"1"}]}}`, ""},
		{namespace + "-owned", freeze, "attempting to grant"},
	} {
		_, err := rbac.ClusterRoles().Patch(t.Context(), test.name, types.MergePatchType, []byte(test.patch), metav1.PatchOptions{})
		if test.want == "" && err != nil || test.want != "" && (!apierrors.IsForbidden(err) || !strings.Contains(err.Error(), test.want)) {
			t.Errorf("patch %s with %s: %v, want %q", test.name, test.patch, err, test.want)
		}
	}
	if _, err := rbac.ClusterRoleBindings().Patch(t.Context(), "cluster-admin", types.MergePatchType, []byte(freeze), metav1.PatchOptions{}); !apierrors.IsForbidden(err) {
		t.Errorf("turn off the update of a binding: %v, want forbidden", err)
	}
}

func TestImpersonationNeedsARight(t *testing.T) {
	t.Parallel()
	a := authority(t)
	namespace := a.Namespace(t)
	a.CreateServiceAccount(t, namespace, "actor")
	as := []string{"Impersonate-User", "system:admin", "Impersonate-Group", "system:masters"}
	got := bearer(t, a.Config(), a.Token(t, namespace, "actor")).get(t, "/api/v1/nodes", as...)
	if got.code != http.StatusForbidden || !strings.Contains(got.status(t).Message, `cannot impersonate resource`) {
		t.Errorf("impersonate as a plain account: %s", got)
	}
	if got := bearer(t, a.Config(), "").get(t, "/api/v1/nodes", as...); got.code != http.StatusForbidden {
		t.Errorf("impersonate as anonymous: %s", got)
	}
	got = callerFor(t, a.Config()).get(t, "/api/v1/nodes", "Impersonate-User", "system:serviceaccount:"+namespace+":actor")
	if got.code != http.StatusForbidden || !strings.Contains(got.status(t).Message, namespace+":actor") {
		t.Errorf("the administrator as an account: %s", got)
	}
}

// clusterAdminBinding returns a binding that gives an account of the namespace default all rights.
func clusterAdminBinding(account string) *rbacv1.ClusterRoleBinding {
	return &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: "all-to-" + account},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "cluster-admin"},
		Subjects:   []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Namespace: metav1.NamespaceDefault, Name: account}},
	}
}
