package systemtest

import (
	"net/http"
	"slices"
	"strings"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
)

// applied is a configuration that owns one label.
func (w workbench) applied(name, value string) *unstructured.Unstructured {
	obj := &unstructured.Unstructured{}
	obj.SetAPIVersion(w.apiVersion())
	kind, _, _ := strings.Cut(strings.TrimPrefix(w.manifest, "{kind: "), ",")
	obj.SetKind(strings.TrimSuffix(kind, "}"))
	obj.SetName(name)
	obj.SetLabels(map[string]string{"x": value})
	return obj
}

func TestPatches(t *testing.T) {
	eachKind(t, func(t *testing.T, w workbench) {
		name := w.name(0)
		w.create(t, name)
		for _, step := range []struct {
			kind  types.PatchType
			patch string
			want  string
		}{
			{types.MergePatchType, `{"metadata":{"labels":{"x":"merge"}}}`, "merge"},
			{types.StrategicMergePatchType, `{"metadata":{"labels":{"x":"strategic"}}}`, "strategic"},
			{types.JSONPatchType, `[{"op":"test","path":"/metadata/labels/x","value":"strategic"},{"op":"replace","path":"/metadata/labels/x","value":"json"}]`, "json"},
			{types.MergePatchType, `{"metadata":{"labels":{"x":null}}}`, ""},
		} {
			got, err := w.client.Patch(t.Context(), name, step.kind, []byte(step.patch), metav1.PatchOptions{})
			if err != nil || got.GetLabels()["x"] != step.want || got.GetLabels()["of"] != w.namespace {
				t.Errorf("%s: %v, %v", step.patch, got.GetLabels(), err)
			}
		}
		for patch, kind := range map[string]types.PatchType{
			`[{"op":"test","path":"/metadata/labels/of","value":"other"}]`: types.JSONPatchType,
			`[{"op":"remove","path":"/metadata/labels/absent"}]`:           types.JSONPatchType,
			`{`: types.MergePatchType, `[]`: types.StrategicMergePatchType,
			`{"metadata":{"labels":{"x":1}}}`: types.MergePatchType,
		} {
			if _, err := w.client.Patch(t.Context(), name, kind, []byte(patch), metav1.PatchOptions{}); !apierrors.IsBadRequest(err) && !apierrors.IsInvalid(err) {
				t.Errorf("%s %s: %v, want it refused", kind, patch, err)
			}
		}
		if _, err := w.client.Patch(t.Context(), w.name(1), types.MergePatchType, label("1"), metav1.PatchOptions{}); !apierrors.IsNotFound(err) {
			t.Errorf("patch of nothing: %v, want not found", err)
		}
		stale := []byte(`{"metadata":{"resourceVersion":"1","labels":{"x":"stale"}}}`)
		if _, err := w.client.Patch(t.Context(), name, types.MergePatchType, stale, metav1.PatchOptions{}); !apierrors.IsConflict(err) {
			t.Errorf("patch of an old version: %v, want a conflict", err)
		}
		if got := w.http.do(t, http.MethodPatch, w.path(w.namespace, name), `{}`, "Content-Type", "application/json"); got.code != http.StatusUnsupportedMediaType {
			t.Errorf("patch of no known type: %s", got)
		}
	})
}

func TestServerSideApply(t *testing.T) {
	eachKind(t, func(t *testing.T, w workbench) {
		name := w.name(0)
		full := w.object(t, w.namespace, name)
		full.SetLabels(map[string]string{"x": "1"})
		made, err := w.client.Apply(t.Context(), name, full, metav1.ApplyOptions{FieldManager: "first"})
		if err != nil || made.GetUID() == "" {
			t.Fatalf("apply that creates: %v, %v", made, err)
		}
		again, err := w.client.Apply(t.Context(), name, full, metav1.ApplyOptions{FieldManager: "first"})
		if err != nil || !w.settles && again.GetResourceVersion() != made.GetResourceVersion() {
			t.Errorf("the same again: version %s, then %s: %v", made.GetResourceVersion(), again.GetResourceVersion(), err)
		}
		if got, err := w.client.Apply(t.Context(), name, w.applied(name, "1"), metav1.ApplyOptions{FieldManager: "agrees"}); err != nil || !owns(got, "agrees") {
			t.Errorf("apply of the same value by another: %v", err)
		}
		_, err = w.client.Apply(t.Context(), name, w.applied(name, "2"), metav1.ApplyOptions{FieldManager: "second"})
		if !apierrors.IsConflict(err) || !strings.Contains(err.Error(), `"first"`) || !strings.Contains(err.Error(), ".metadata.labels.x") {
			t.Errorf("apply of another value: %v, want a conflict that names manager and field", err)
		}
		got, err := w.client.Apply(t.Context(), name, w.applied(name, "2"), metav1.ApplyOptions{FieldManager: "second", Force: true})
		if err != nil || got.GetLabels()["x"] != "2" || !owns(got, "second") {
			t.Errorf("apply by force: %v, %v", got.GetLabels(), err)
		}
		nothing := w.applied(name, "")
		nothing.SetLabels(nil)
		got, err = w.client.Apply(t.Context(), name, nothing, metav1.ApplyOptions{FieldManager: "second"})
		if _, there := got.GetLabels()["x"]; err != nil || there {
			t.Errorf("apply without the only owner's label: %v, %v", got.GetLabels(), err)
		}
		if _, err := w.client.Apply(t.Context(), name, nothing, metav1.ApplyOptions{}); !apierrors.IsInvalid(err) {
			t.Errorf("apply without a field manager: %v, want invalid", err)
		}
	})
}

func owns(obj *unstructured.Unstructured, manager string) bool {
	return slices.ContainsFunc(obj.GetManagedFields(), func(m metav1.ManagedFieldsEntry) bool {
		return m.Manager == manager && m.Operation == metav1.ManagedFieldsOperationApply
	})
}

// TestStrategicMergeKnowsLists: a strategic merge patch merges lists by their keys, where a merge patch replaces them.
func TestStrategicMergeKnowsLists(t *testing.T) {
	t.Parallel()
	a := authority(t)
	namespace, accounts := a.Namespace(t), a.Client().CoreV1().ServiceAccounts
	a.CreateServiceAccount(t, namespace, "puller")
	patch := func(kind types.PatchType, body string) int {
		t.Helper()
		got, err := accounts(namespace).Patch(t.Context(), "puller", kind, []byte(body), metav1.PatchOptions{})
		if err != nil {
			t.Fatal(err)
		}
		return len(got.Secrets)
	}
	if n := patch(types.StrategicMergePatchType, `{"secrets":[{"name":"a"}]}`); n != 1 {
		t.Errorf("%d entries, want 1", n)
	}
	if n := patch(types.StrategicMergePatchType, `{"secrets":[{"name":"b"}]}`); n != 2 {
		t.Errorf("%d entries, want 2", n)
	}
	if n := patch(types.StrategicMergePatchType, `{"secrets":[{"name":"a","$patch":"delete"}]}`); n != 1 {
		t.Errorf("%d entries, want 1", n)
	}
	if n := patch(types.MergePatchType, `{"secrets":[{"name":"c"}]}`); n != 1 {
		t.Errorf("%d entries, want 1", n)
	}
}
