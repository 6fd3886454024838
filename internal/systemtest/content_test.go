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
	"k8s.io/utils/ptr"
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
		t.Errorf("stringData was not merged: %+v, %v", made, err)
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

func podOn(node string) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "p"},
		Spec:       corev1.PodSpec{NodeName: node, ServiceAccountName: "default", Containers: []corev1.Container{{Name: "c", Image: "x"}}},
	}
}

func TestPodsAreDeletedGracefully(t *testing.T) {
	t.Parallel()
	a := authority(t)
	for name, tt := range map[string]struct {
		node    string
		options metav1.DeleteOptions
		stays   bool
		grace   int64
	}{
		"not on a node":        {"", metav1.DeleteOptions{}, false, 0},
		"on a node":            {"n", metav1.DeleteOptions{}, true, 30},
		"in its own time":      {"n", metav1.DeleteOptions{GracePeriodSeconds: ptr.To[int64](5)}, true, 5},
		"at once":              {"n", metav1.DeleteOptions{GracePeriodSeconds: ptr.To[int64](0)}, false, 0},
		"not in negative time": {"n", metav1.DeleteOptions{GracePeriodSeconds: ptr.To[int64](-1)}, true, 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			pods := a.Client().CoreV1().Pods(a.Namespace(t))
			if _, err := pods.Create(t.Context(), podOn(tt.node), metav1.CreateOptions{}); err != nil {
				t.Fatal(err)
			}
			if err := pods.Delete(t.Context(), "p", tt.options); err != nil {
				t.Fatal(err)
			}
			pod, err := pods.Get(t.Context(), "p", metav1.GetOptions{})
			if !tt.stays {
				if !apierrors.IsNotFound(err) {
					t.Errorf("get: %v, want not found", err)
				}
				return
			}
			if err != nil || pod.DeletionTimestamp == nil || pod.DeletionGracePeriodSeconds == nil || *pod.DeletionGracePeriodSeconds != tt.grace {
				t.Fatalf("after the delete: %+v, %v", pod.ObjectMeta, err)
			}
			if err := pods.Delete(t.Context(), "p", metav1.DeleteOptions{GracePeriodSeconds: ptr.To[int64](0)}); err != nil {
				t.Errorf("delete by force: %v", err)
			}
			if _, err := pods.Get(t.Context(), "p", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
				t.Errorf("get: %v, want not found", err)
			}
		})
	}
}

func TestPodParts(t *testing.T) {
	t.Parallel()
	a := authority(t)
	namespace := a.Namespace(t)
	pods := a.Client().CoreV1().Pods(namespace)
	if _, err := pods.Create(t.Context(), podOn(""), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	binding := &corev1.Binding{ObjectMeta: metav1.ObjectMeta{Name: "p"}, Target: corev1.ObjectReference{Kind: "Node", Name: "n"}}
	if err := pods.Bind(t.Context(), binding, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := pods.Bind(t.Context(), binding, metav1.CreateOptions{}); !apierrors.IsConflict(err) {
		t.Errorf("bind again: %v, want a conflict", err)
	}
	pod, err := pods.Get(t.Context(), "p", metav1.GetOptions{})
	if err != nil || pod.Spec.NodeName != "n" {
		t.Fatalf("after the binding: %v, %v", pod.Spec.NodeName, err)
	}
	pod.Status.Phase, pod.Spec.NodeName = corev1.PodRunning, "other"
	updated, err := pods.UpdateStatus(t.Context(), pod, metav1.UpdateOptions{})
	if err != nil || updated.Status.Phase != corev1.PodRunning || updated.Spec.NodeName != "n" {
		t.Errorf("status: %+v, %v", updated, err)
	}
	for patch, ok := range map[string]bool{
		`{"spec":{"serviceAccountName":"other"}}`: false, `{"spec":{"nodeName":"other"}}`: false,
		`{"spec":{"hostNetwork":true}}`: false, `{"spec":{"activeDeadlineSeconds":5}}`: true,
		`{"status":{"phase":"Failed"}}`: true,
	} {
		got, err := pods.Patch(t.Context(), "p", types.StrategicMergePatchType, []byte(patch), metav1.PatchOptions{})
		if ok != (err == nil) || !ok && !apierrors.IsInvalid(err) || ok && got.Status.Phase != corev1.PodRunning {
			t.Errorf("patch %s: %v", patch, err)
		}
	}
	if _, err := pods.Get(t.Context(), "p", metav1.GetOptions{}); err != nil {
		t.Error(err)
	}
}

// TestEventsAreOneInBothGroups: what is written through one group is read through the other, translated.
func TestEventsAreOneInBothGroups(t *testing.T) {
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
