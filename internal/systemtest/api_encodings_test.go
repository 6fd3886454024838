// Promise: every stored kind is read and written in each encoding and by each kind of patch, and unknown fields are reported.

package systemtest

import (
	"bytes"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/yaml"
)

// applied returns a configuration that owns one label.
func (w kindTest) applied(name, value string) *unstructured.Unstructured {
	obj := &unstructured.Unstructured{}
	obj.SetAPIVersion(w.apiVersion())
	kind, _, _ := strings.Cut(strings.TrimPrefix(w.manifest, "{kind: "), ",")
	obj.SetKind(strings.TrimSuffix(kind, "}"))
	obj.SetName(name)
	obj.SetLabels(map[string]string{"x": value})
	return obj
}

func TestPatches(t *testing.T) {
	eachKind(t, func(t *testing.T, w kindTest) {
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
		if _, err := w.client.Patch(t.Context(), w.name(1), types.MergePatchType, labelPatch("1"), metav1.PatchOptions{}); !apierrors.IsNotFound(err) {
			t.Errorf("patch of an absent object: %v, want not found", err)
		}
		stale := []byte(`{"metadata":{"resourceVersion":"1","labels":{"x":"stale"}}}`)
		if _, err := w.client.Patch(t.Context(), name, types.MergePatchType, stale, metav1.PatchOptions{}); !apierrors.IsConflict(err) {
			t.Errorf("patch of an old version: %v, want a conflict", err)
		}
		if got := w.http.do(t, http.MethodPatch, w.path(w.namespace, name), `{}`, "Content-Type", "application/json"); got.code != http.StatusUnsupportedMediaType {
			t.Errorf("patch of an unknown type: %s", got)
		}
	})
}

func TestServerSideApply(t *testing.T) {
	eachKind(t, func(t *testing.T, w kindTest) {
		name := w.name(0)
		full := w.object(t, w.namespace, name)
		full.SetLabels(map[string]string{"x": "1"})
		made, err := w.client.Apply(t.Context(), name, full, metav1.ApplyOptions{FieldManager: "first"})
		if err != nil || made.GetUID() == "" {
			t.Fatalf("apply to an absent object: %v, %v", made, err)
		}
		again, err := w.client.Apply(t.Context(), name, full, metav1.ApplyOptions{FieldManager: "first"})
		if err != nil || !w.asynchronous && again.GetResourceVersion() != made.GetResourceVersion() {
			t.Errorf("apply the same configuration again: version %s, then %s: %v", made.GetResourceVersion(), again.GetResourceVersion(), err)
		}
		if got, err := w.client.Apply(t.Context(), name, w.applied(name, "1"), metav1.ApplyOptions{FieldManager: "agrees"}); err != nil || !owns(got, "agrees") {
			t.Errorf("apply of the same value by another manager: %v", err)
		}
		_, err = w.client.Apply(t.Context(), name, w.applied(name, "2"), metav1.ApplyOptions{FieldManager: "second"})
		if !apierrors.IsConflict(err) || !strings.Contains(err.Error(), `"first"`) || !strings.Contains(err.Error(), ".metadata.labels.x") {
			t.Errorf("apply of another value: %v, want a conflict that names the manager and the field", err)
		}
		got, err := w.client.Apply(t.Context(), name, w.applied(name, "2"), metav1.ApplyOptions{FieldManager: "second", Force: true})
		if err != nil || got.GetLabels()["x"] != "2" || !owns(got, "second") {
			t.Errorf("apply by force: %v, %v", got.GetLabels(), err)
		}
		nothing := w.applied(name, "")
		nothing.SetLabels(nil)
		got, err = w.client.Apply(t.Context(), name, nothing, metav1.ApplyOptions{FieldManager: "second"})
		if _, there := got.GetLabels()["x"]; err != nil || there {
			t.Errorf("apply without the label by its only owner: %v, %v", got.GetLabels(), err)
		}
		if _, err := w.client.Apply(t.Context(), name, nothing, metav1.ApplyOptions{}); !apierrors.IsInvalid(err) {
			t.Errorf("apply without a field manager: %v, want invalid", err)
		}
	})
}

// owns reports whether a manager owns fields of the object by apply.
func owns(obj *unstructured.Unstructured, manager string) bool {
	return slices.ContainsFunc(obj.GetManagedFields(), func(m metav1.ManagedFieldsEntry) bool {
		return m.Manager == manager && m.Operation == metav1.ManagedFieldsOperationApply
	})
}

// TestStrategicMergePatchMergesLists checks that a strategic merge patch merges lists by their keys, where a merge patch replaces
// them.
func TestStrategicMergePatchMergesLists(t *testing.T) {
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

const (
	jsonType     = "application/json"
	yamlType     = "application/yaml"
	protobufType = "application/vnd.kubernetes.protobuf"
)

// typed converts the manifest to the Go type that clients have for the kind.
func (w kindTest) typed(t testing.TB, name string) runtime.Object {
	t.Helper()
	obj := w.object(t, w.namespace, name)
	into, err := scheme.Scheme.New(obj.GroupVersionKind())
	if err != nil {
		t.Fatal(err)
	}
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(obj.Object, into); err != nil {
		t.Fatal(err)
	}
	return into
}

// serializer returns the client library's encoder and decoder for a media type.
func (w kindTest) serializer(t testing.TB, mediaType string) (runtime.Encoder, runtime.Decoder) {
	t.Helper()
	info, ok := runtime.SerializerInfoForMediaType(scheme.Codecs.SupportedMediaTypes(), mediaType)
	if !ok {
		t.Fatalf("no serializer for %s", mediaType)
	}
	return scheme.Codecs.EncoderForVersion(info.Serializer, w.gvr().GroupVersion()), scheme.Codecs.UniversalDeserializer()
}

// TestEncodings writes and reads every kind in every encoding, and expects the same object from each.
func TestEncodings(t *testing.T) {
	eachKind(t, func(t *testing.T, w kindTest) {
		for i, mediaType := range []string{jsonType, yamlType, protobufType} {
			encoder, decoder := w.serializer(t, mediaType)
			var body bytes.Buffer
			if err := encoder.Encode(w.typed(t, w.name(i)), &body); err != nil {
				t.Fatal(err)
			}
			posted := w.http.do(t, http.MethodPost, w.path(w.namespace, ""), body.Bytes(), "Content-Type", mediaType, "Accept", mediaType)
			if posted.code != http.StatusCreated || posted.header.Get("Content-Type") != mediaType {
				t.Fatalf("%s: %s %q", mediaType, posted.header.Get("Content-Type"), posted)
			}
			made, _, err := decoder.Decode(posted.body, nil, nil)
			if err != nil {
				t.Fatalf("%s: %v", mediaType, err)
			}
			for _, other := range []string{jsonType, yamlType, protobufType} {
				got := w.http.must(t, http.MethodGet, w.path(w.namespace, w.name(i)), nil, "Accept", other)
				read, _, err := decoder.Decode(got.body, nil, nil)
				if err != nil {
					t.Fatalf("%s: %v", other, err)
				}
				if diff := cmp.Diff(made, read); diff != "" && !w.asynchronous {
					t.Errorf("written as %s, read as %s (-want +got):\n%s", mediaType, other, diff)
				}
			}
			list := w.http.must(t, http.MethodGet, w.path(w.namespace, "")+"?labelSelector="+w.selector(), nil, "Accept", mediaType)
			items, _, err := decoder.Decode(list.body, nil, nil)
			if err != nil || meta.LenList(items) != i+1 {
				t.Errorf("list as %s: %d items, %v", mediaType, meta.LenList(items), err)
			}
		}
	})
}

func TestUnknownEncodingsAreRefused(t *testing.T) {
	eachKind(t, func(t *testing.T, w kindTest) {
		path := w.path(w.namespace, "")
		if got := w.http.do(t, http.MethodPost, path, `x`, "Content-Type", "text/csv"); got.code != http.StatusUnsupportedMediaType {
			t.Errorf("post CSV: %s", got)
		}
		if got := w.http.get(t, path, "Accept", "text/csv"); got.code != http.StatusNotAcceptable {
			t.Errorf("get CSV: %s", got)
		}
		for _, body := range []string{``, `{`, `[]`, `{"kind":"Deployment","apiVersion":"apps/v1"}`, `{"kind":"` + strings.Repeat("x", 1000) + `"}`} {
			if got := w.http.do(t, http.MethodPost, path, []byte(body)); got.code != http.StatusBadRequest {
				t.Errorf("post %.40q: %s", body, got)
			}
		}
	})
}

func TestFieldValidation(t *testing.T) {
	eachKind(t, func(t *testing.T, w kindTest) {
		name := w.name(0)
		good, err := w.object(t, w.namespace, name).MarshalJSON()
		if err != nil {
			t.Fatal(err)
		}
		flawed := map[string]string{
			`unknown field "nothing"`:       strings.Replace(string(good), `{`, `{"nothing":1,`, 1),
			`duplicate field "apiVersion"`:  strings.Replace(string(good), `{`, `{"apiVersion":"`+w.apiVersion()+`",`, 1),
			`unknown field "metadata.nope"`: strings.Replace(string(good), `"metadata":{`, `"metadata":{"nope":{},`, 1),
		}
		for want, body := range flawed {
			w.fieldValidation(t, want, body)
		}
		asYAML, err := yaml.JSONToYAML(good)
		if err != nil {
			t.Fatal(err)
		}
		strict := w.http.do(t, http.MethodPost, w.path(w.namespace, "")+"?fieldValidation=Strict&dryRun=All", "nothing: 1\n"+string(asYAML), "Content-Type", yamlType)
		if strict.code != http.StatusBadRequest || !strings.Contains(string(strict.body), `unknown field \"nothing\"`) {
			t.Errorf("YAML, Strict: %s", strict)
		}
		if got := w.http.do(t, http.MethodPost, w.path(w.namespace, "")+"?fieldValidation=Perhaps", good); got.code != http.StatusUnprocessableEntity {
			t.Errorf("fieldValidation=Perhaps: %s", got)
		}
		w.patchValidation(t)
	})
}

// fieldValidation creates a flawed object with each directive of fieldValidation. want is a part of the error or warning.
func (w kindTest) fieldValidation(t *testing.T, want, body string) {
	t.Helper()
	path := w.path(w.namespace, "") + "?dryRun=All&fieldValidation="
	if got := w.http.do(t, http.MethodPost, path+"Strict", body); got.code != http.StatusBadRequest || !strings.Contains(got.status(t).Message, want) {
		t.Errorf("Strict: %s, want %s", got, want)
	}
	for _, directive := range []string{"Warn", ""} {
		got := w.http.do(t, http.MethodPost, path+directive, body)
		warnings := strings.Join(got.header.Values("Warning"), "\n")
		if got.code != http.StatusCreated || !strings.Contains(warnings, strings.ReplaceAll(want, `"`, `\"`)) {
			t.Errorf("Warn: %s with warnings %q, want %s", got, warnings, want)
		}
	}
	got := w.http.do(t, http.MethodPost, path+"Ignore", body)
	if got.code != http.StatusCreated || strings.Contains(strings.Join(got.header.Values("Warning"), ""), "field") {
		t.Errorf("Ignore: %s with warnings %q", got, got.header.Values("Warning"))
	}
}

// patchValidation sends unknown fields in patches and in an applied configuration.
func (w kindTest) patchValidation(t *testing.T) {
	t.Helper()
	name := w.name(1)
	w.create(t, name)
	for mediaType, patch := range map[string]string{
		"application/merge-patch+json":           `{"nothing":1}`,
		"application/strategic-merge-patch+json": `{"nothing":1}`,
		"application/json-patch+json":            `[{"op":"add","path":"/nothing","value":1}]`,
	} {
		path := w.path(w.namespace, name) + "?fieldValidation="
		if got := w.http.do(t, http.MethodPatch, path+"Strict", patch, "Content-Type", mediaType); got.code != http.StatusUnprocessableEntity || !strings.Contains(string(got.body), "unknown field") {
			t.Errorf("%s, Strict: %s", mediaType, got)
		}
		if got := w.http.do(t, http.MethodPatch, path+"Ignore", patch, "Content-Type", mediaType); got.code != http.StatusOK {
			t.Errorf("%s, Ignore: %s", mediaType, got)
		}
	}
	applied := w.applied(name, "1")
	applied.Object["nothing"] = int64(1)
	body, err := applied.MarshalJSON()
	if err != nil {
		t.Fatal(err)
	}
	got := w.http.do(t, http.MethodPatch, w.path(w.namespace, name)+"?fieldManager=m&fieldValidation=Strict", body, "Content-Type", "application/apply-patch+yaml")
	// Kubernetes answers 500, although the request is at fault.
	if got.code != http.StatusBadRequest || !strings.Contains(got.status(t).Message, ".nothing: field not declared in schema") {
		t.Errorf("apply, Strict: %s", got)
	}
}
