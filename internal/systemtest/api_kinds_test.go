// Promise: rules of single kinds (immutable content, types of secrets, events in two groups, the status of a node) hold, and
// fields without an effect draw a warning.

package systemtest

import (
	"net/http"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

func TestImmutableContent(t *testing.T) {
	t.Parallel()
	a := authority(t)
	namespace, admin := a.Namespace(t), callerFor(t, a.Config())
	for _, resource := range []string{"secrets", "configmaps"} {
		kind := map[string]string{"secrets": "Secret", "configmaps": "ConfigMap"}[resource]
		path := "/api/v1/namespaces/" + namespace + "/" + resource
		admin.must(t, http.MethodPost, path, `{"apiVersion":"v1","kind":"`+kind+`","metadata":{"name":"fixed"},"immutable":true,"data":{"k":"dg=="}}`)
		for patch, ok := range map[string]bool{
			`{"data":{"k":"dw=="}}`: false, `{"data":{"l":"dg=="}}`: false, `{"immutable":false}`: false, `{"immutable":null}`: false,
			`{"metadata":{"labels":{"a":"b"}}}`: true,
		} {
			got := admin.do(t, http.MethodPatch, path+"/fixed", patch, "Content-Type", "application/merge-patch+json")
			if ok && got.code != http.StatusOK || !ok && (got.code != http.StatusUnprocessableEntity || !strings.Contains(got.status(t).Message, "field is immutable when `immutable` is set")) {
				t.Errorf("%s: patch %s: %s", resource, patch, got)
			}
		}
		admin.must(t, http.MethodDelete, path+"/fixed", nil)
	}
}

func TestSecretsAreChecked(t *testing.T) {
	t.Parallel()
	a := authority(t)
	secrets := a.Client().CoreV1().Secrets(a.Namespace(t))
	made, err := secrets.Create(t.Context(), &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "s"}, Data: map[string][]byte{"a": []byte("1")}, StringData: map[string]string{"b": "2", "a": "3"}}, metav1.CreateOptions{})
	if err != nil || made.Type != corev1.SecretTypeOpaque || string(made.Data["a"]) != "3" || string(made.Data["b"]) != "2" || made.StringData != nil {
		t.Errorf("stringData is not merged into data: %+v, %v", made, err)
	}
	for name, tt := range map[string]struct {
		secret corev1.Secret
		field  string
	}{
		"key":        {corev1.Secret{Data: map[string][]byte{"a/b": nil}}, "data[a/b]"},
		"docker":     {corev1.Secret{Type: corev1.SecretTypeDockerConfigJson, Data: map[string][]byte{".dockerconfigjson": []byte("{")}}, "data[.dockerconfigjson]"},
		"no docker":  {corev1.Secret{Type: corev1.SecretTypeDockerConfigJson}, "data[.dockerconfigjson]"},
		"basic auth": {corev1.Secret{Type: corev1.SecretTypeBasicAuth}, "data[username]"},
		"ssh":        {corev1.Secret{Type: corev1.SecretTypeSSHAuth}, "data[ssh-privatekey]"},
		"tls":        {corev1.Secret{Type: corev1.SecretTypeTLS, Data: map[string][]byte{"tls.crt": nil}}, "data[tls.key]"},
		"account":    {corev1.Secret{Type: corev1.SecretTypeServiceAccountToken}, "metadata.annotations[kubernetes.io/service-account.name]"},
		"large":      {corev1.Secret{Data: map[string][]byte{"a": make([]byte, 1<<20+1)}}, "data"},
	} {
		tt.secret.Name = "bad"
		_, err := secrets.Create(t.Context(), &tt.secret, metav1.CreateOptions{})
		if !apierrors.IsInvalid(err) || !strings.Contains(err.Error(), tt.field) {
			t.Errorf("%s: %.300v, want invalid %s", name, err, tt.field)
		}
	}
	if _, err := secrets.Patch(t.Context(), "s", types.MergePatchType, []byte(`{"type":"other"}`), metav1.PatchOptions{}); !apierrors.IsInvalid(err) {
		t.Errorf("change of type: %v, want invalid", err)
	}
}

// TestEventsAreSharedByBothGroups writes events through each of the two groups and reads them, converted, through the other
// one.
func TestEventsAreSharedByBothGroups(t *testing.T) {
	t.Parallel()
	a := authority(t)
	namespace := a.Namespace(t)
	core, events := a.Client().CoreV1().Events(namespace), a.Client().EventsV1().Events(namespace)
	about := corev1.ObjectReference{Kind: "Pod", Namespace: namespace, Name: "p", UID: "u"}
	old := &corev1.Event{
		ObjectMeta: metav1.ObjectMeta{Name: "old"}, InvolvedObject: about, Reason: "Seen", Message: "there it is", Type: corev1.EventTypeNormal,
		Source: corev1.EventSource{Component: "watcher"}, Count: 3,
	}
	if _, err := core.Create(t.Context(), old, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if got, err := events.Get(t.Context(), "old", metav1.GetOptions{}); err != nil || got.Regarding != about || got.Note != "there it is" || got.DeprecatedCount != 3 || got.DeprecatedSource.Component != "watcher" {
		t.Errorf("read as events.k8s.io: %+v, %v", got, err)
	}
	now := metav1.NewMicroTime(time.Now())
	fresh := &eventsv1.Event{
		ObjectMeta: metav1.ObjectMeta{Name: "new"}, EventTime: now, ReportingController: "example.com/c", ReportingInstance: "c-0",
		Action: "See", Reason: "Seen", Regarding: about, Note: "and there", Type: corev1.EventTypeWarning,
	}
	if _, err := events.Create(t.Context(), fresh, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if got, err := core.Get(t.Context(), "new", metav1.GetOptions{}); err != nil || got.InvolvedObject != about || got.Message != "and there" || got.ReportingController != "example.com/c" {
		t.Errorf("read as core: %+v, %v", got, err)
	}
	list, err := core.List(t.Context(), metav1.ListOptions{FieldSelector: "involvedObject.uid=u,type=Warning"})
	if err != nil || len(list.Items) != 1 || list.Items[0].Name != "new" {
		t.Errorf("list by field: %+v, %v", list, err)
	}
	fresh.Name, fresh.Action = "incomplete", ""
	if _, err := events.Create(t.Context(), fresh, metav1.CreateOptions{}); !apierrors.IsInvalid(err) || !strings.Contains(err.Error(), "action") {
		t.Errorf("new event without an action: %v, want invalid", err)
	}
	if err := events.Delete(t.Context(), "old", metav1.DeleteOptions{}); err != nil {
		t.Error(err)
	}
	if _, err := core.Get(t.Context(), "old", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		t.Errorf("get of the deleted: %v, want not found", err)
	}
}

// TestNodeSpecAndStatusAreSeparate checks that the status of a node is written through nodes/status only, and its spec through nodes only.
func TestNodeSpecAndStatusAreSeparate(t *testing.T) {
	t.Parallel()
	a := authority(t)
	nodes, name := a.Client().CoreV1().Nodes(), a.Namespace(t)
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: corev1.NodeSpec{ProviderID: "x://1"}}
	if _, err := nodes.Create(t.Context(), node, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	patch := []byte(`{"spec":{"unschedulable":true},"status":{"phase":"Running","nodeInfo":{"kubeletVersion":"v1"}}}`)
	for _, parts := range [][]string{nil, {"status"}} {
		got, err := nodes.Patch(t.Context(), name, types.StrategicMergePatchType, patch, metav1.PatchOptions{}, parts...)
		if err != nil {
			t.Fatal(err)
		}
		if status := len(parts) > 0; got.Spec.Unschedulable != true || (got.Status.NodeInfo.KubeletVersion == "v1") != status {
			t.Errorf("patch of %v: %+v", parts, got)
		}
	}
	undo := []byte(`{"spec":{"unschedulable":false}}`)
	if got, err := nodes.Patch(t.Context(), name, types.StrategicMergePatchType, undo, metav1.PatchOptions{}, "status"); err != nil || !got.Spec.Unschedulable {
		t.Errorf("spec written through nodes/status: %+v, %v", got.Spec, err)
	}
}

// TestFieldsWithoutEffectDrawWarnings checks that a field which is accepted and has no effect in this server draws a Warning that
// names the field, and that fields with an effect draw none.
func TestFieldsWithoutEffectDrawWarnings(t *testing.T) {
	t.Parallel()
	a := authority(t)
	admin, namespace := callerFor(t, a.Config()), a.Namespace(t)
	in := "/api/v1/namespaces/" + namespace
	const system = "/api/v1/namespaces/kube-system/secrets"
	const owner = `"ownerReferences":[{"apiVersion":"v1","kind":"Node","name":"n","uid":"1","controller":true}]`
	for _, test := range []struct{ name, method, path, body, want string }{
		{"owner references", http.MethodPost, in + "/configmaps", `{"metadata":{"name":"owned",` + owner + `}}`, "metadata.ownerReferences: an object is not removed with its owners"},
		{"unchanged owner references", http.MethodPut, in + "/configmaps/owned", `{"metadata":{"name":"owned",` + owner + `},"data":{"a":"b"}}`, ""},
		{"owner references of a mirror pod", http.MethodPost, in + "/pods", `{"metadata":{"name":"mirror","annotations":{"kubernetes.io/config.mirror":"x"},` + owner + `},"spec":{"nodeName":"n","containers":[{"name":"c","image":"x:1"}]}}`, ""},
		{"a finalizer of the garbage collector", http.MethodPost, in + "/configmaps?dryRun=All", `{"metadata":{"name":"f","finalizers":["foregroundDeletion"]}}`, "metadata.finalizers: nothing removes foregroundDeletion"},
		{"another finalizer", http.MethodPost, in + "/configmaps?dryRun=All", `{"metadata":{"name":"f","finalizers":["example.com/f"]}}`, ""},
		{"foreground deletion", http.MethodDelete, in + "/configmaps/owned", `{"dryRun":["All"],"propagationPolicy":"Foreground"}`, "propagationPolicy Foreground: dependents are not removed"},
		{"background deletion, kubectl's default", http.MethodDelete, in + "/configmaps/owned", `{"dryRun":["All"],"propagationPolicy":"Background"}`, ""},
		{"foreground deletion of a collection", http.MethodDelete, in + "/configmaps", `{"dryRun":["All"],"propagationPolicy":"Foreground"}`, "propagationPolicy Foreground"},
		{"a token secret, which stays empty", http.MethodPost, in + "/secrets", `{"metadata":{"name":"t","annotations":{"kubernetes.io/service-account.name":"default"}},"type":"kubernetes.io/service-account-token"}`, "no token is filled in"},
		{"a bootstrap token in another namespace", http.MethodPost, in + "/secrets", `{"metadata":{"name":"b"},"type":"bootstrap.kubernetes.io/token"}`, "metadata.namespace: only secrets in kube-system are bootstrap tokens"},
		{"a bootstrap token with a wrong name", http.MethodPost, system + "?dryRun=All", `{"metadata":{"name":"b"},"type":"bootstrap.kubernetes.io/token","stringData":{"token-id":"abcdef","token-secret":"0123456789abcdef","usage-bootstrap-authentication":"true"}}`, "metadata.name: must be bootstrap-token-ID"},
		{"a bootstrap token", http.MethodPost, system + "?dryRun=All", `{"metadata":{"name":"bootstrap-token-abcdef"},"type":"bootstrap.kubernetes.io/token","stringData":{"token-id":"abcdef","token-secret":"0123456789abcdef","usage-bootstrap-authentication":"true"}}`, ""},
		{"a lease with a strategy for choosing its holder", http.MethodPost, "/apis/coordination.k8s.io/v1/namespaces/" + namespace + "/leases", `{"metadata":{"name":"l"},"spec":{"strategy":"OldestEmulationVersion"}}`, "spec.strategy: this server chooses no holder"},
		{"rules beside an aggregation", http.MethodPost, "/apis/rbac.authorization.k8s.io/v1/clusterroles?dryRun=All", `{"metadata":{"name":"agg"},"aggregationRule":{"clusterRoleSelectors":[{"matchLabels":{"a":"b"}}]},"rules":[{"verbs":["get"],"apiGroups":[""],"resources":["pods"]}]}`, "rules: replaced by the rules"},
		{"an aggregation", http.MethodPost, "/apis/rbac.authorization.k8s.io/v1/clusterroles?dryRun=All", `{"metadata":{"name":"agg"},"aggregationRule":{"clusterRoleSelectors":[{"matchLabels":{"a":"b"}}]},"rules":[]}`, ""},
		{"a node's external ID", http.MethodPost, "/api/v1/nodes?dryRun=All", `{"metadata":{"name":"n"},"spec":{"externalID":"x"}}`, "spec.externalID: this field is deprecated"},
		{"a node", http.MethodPost, "/api/v1/nodes?dryRun=All", `{"metadata":{"name":"n"},"spec":{"providerID":"x://1"}}`, ""},
		{"an account that limits mounts", http.MethodPost, in + "/serviceaccounts?dryRun=All", `{"metadata":{"name":"m","annotations":{"kubernetes.io/enforce-mountable-secrets":"true"}}}`, "deprecated in v1.32+"},
	} {
		got := admin.must(t, test.method, test.path, test.body)
		warnings := strings.Join(got.header.Values("Warning"), "\n")
		if test.want == "" && warnings != "" || !strings.Contains(warnings, test.want) {
			t.Errorf("%s: warnings %q, want %q", test.name, warnings, test.want)
		}
	}
}
