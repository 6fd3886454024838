package apiserver_test

import (
	"bytes"
	"encoding/json"
	"os"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	auditv1 "k8s.io/apiserver/pkg/apis/audit/v1"
	"k8s.io/client-go/kubernetes"

	"lanyard.dev/internal/apiserver"
	"lanyard.dev/internal/apiserver/auditlog"
)

// TestControllersAreAudited creates a namespace and deletes it again: each write of a controller is in the audit log,
// under the user name of that controller, with the binding that allowed it.
func TestControllersAreAudited(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	log := s.file("audit.log")
	r := s.startBy(t, func(o *apiserver.Options) {
		o.Etcd.SoleWriter = true
		o.Audit = auditlog.Options{LogPath: log}
	}, apiserver.New)
	namespaces := kubernetes.NewForConfigOrDie(r.admin).CoreV1().Namespaces()
	_, err := namespaces.Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "audited"}}, metav1.CreateOptions{})
	must(t, err)
	must(t, namespaces.Delete(t.Context(), "audited", metav1.DeleteOptions{}))

	const prefix = "system:controller:"
	missing := map[string]string{ // the user of each write
		"create serviceaccounts":           prefix + "service-account-controller",
		"create configmaps":                prefix + "root-ca-cert-publisher",
		"deletecollection secrets":         prefix + "namespace-controller",
		"deletecollection serviceaccounts": prefix + "namespace-controller",
		"update namespaces/finalize":       prefix + "namespace-controller",
	}
	for deadline := time.Now().Add(30 * time.Second); len(missing) > 0; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not in the audit log: %v", missing)
		}
		text, err := os.ReadFile(log)
		must(t, err)
		for line := range bytes.Lines(text) {
			var e auditv1.Event
			if json.Unmarshal(line, &e) != nil || e.ObjectRef == nil || e.ObjectRef.Namespace != "audited" {
				continue
			}
			what := e.Verb + " " + e.ObjectRef.Resource
			if e.ObjectRef.Subresource != "" {
				what += "/" + e.ObjectRef.Subresource
			}
			if user, wanted := missing[what]; wanted && e.User.Username == user && e.Annotations["authorization.k8s.io/decision"] == "allow" {
				delete(missing, what)
			}
		}
	}
}
