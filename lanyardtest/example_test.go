package lanyardtest_test

import (
	"fmt"
	"testing"

	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"lanyard.dev/lanyardtest"
)

// The program under test may read the ConfigMaps of its namespace, and nothing else.
func Example() {
	_ = func(t *testing.T) { // TestReader(t *testing.T)
		authority := lanyardtest.Start(t)
		namespace := authority.Namespace(t)
		authority.CreateServiceAccount(t, namespace, "reader")
		authority.Grant(t, namespace, "reader", rbacv1.PolicyRule{
			APIGroups: []string{""}, Resources: []string{"configmaps"}, Verbs: []string{"get", "list"},
		})

		client, err := kubernetes.NewForConfig(authority.As(t, namespace, "reader"))
		if err != nil {
			t.Fatal(err)
		}
		found, err := client.CoreV1().ConfigMaps(namespace).List(t.Context(), metav1.ListOptions{})
		if err != nil {
			t.Fatal(err)
		}
		fmt.Println(found.Items[0].Name) // kube-root-ca.crt
		_, err = client.CoreV1().Secrets(namespace).List(t.Context(), metav1.ListOptions{})
		if !apierrors.IsForbidden(err) {
			t.Errorf("list secrets: got %v, want forbidden", err)
		}
	}
}
