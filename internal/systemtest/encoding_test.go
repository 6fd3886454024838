package systemtest

import (
	"bytes"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/yaml"
)

const (
	jsonType     = "application/json"
	yamlType     = "application/yaml"
	protobufType = "application/vnd.kubernetes.protobuf"
)

// typed turns a manifest into the Go type that clients have for it.
func (w workbench) typed(t testing.TB, name string) runtime.Object {
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

func (w workbench) serializer(t testing.TB, mediaType string) (runtime.Encoder, runtime.Decoder) {
	t.Helper()
	info, ok := runtime.SerializerInfoForMediaType(scheme.Codecs.SupportedMediaTypes(), mediaType)
	if !ok {
		t.Fatalf("no serializer for %s", mediaType)
	}
	return scheme.Codecs.EncoderForVersion(info.Serializer, w.gvr().GroupVersion()), scheme.Codecs.UniversalDeserializer()
}

// TestEncodings writes and reads every kind in every encoding, and expects the same object of all.
func TestEncodings(t *testing.T) {
	eachKind(t, func(t *testing.T, w workbench) {
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
				if diff := cmp.Diff(made, read); diff != "" && !w.settles {
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
	eachKind(t, func(t *testing.T, w workbench) {
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
	eachKind(t, func(t *testing.T, w workbench) {
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

func (w workbench) fieldValidation(t *testing.T, want, body string) {
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

// patchValidation tries unknown fields in patches and in an applied configuration.
func (w workbench) patchValidation(t *testing.T) {
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
	// Kubernetes answers 500, though the fault is the client's.
	if got.code != http.StatusBadRequest || !strings.Contains(got.status(t).Message, ".nothing: field not declared in schema") {
		t.Errorf("apply, Strict: %s", got)
	}
}

// TestAnsweredKindsValidateFields: the kinds that are only answered go another way through the server.
func TestAnsweredKindsValidateFields(t *testing.T) {
	t.Parallel()
	a := authority(t)
	namespace, admin := a.Namespace(t), callerFor(t, a.Config())
	for path, body := range map[string]string{
		"/api/v1/namespaces/" + namespace + "/serviceaccounts/default/token":                   `{"kind":"TokenRequest","apiVersion":"authentication.k8s.io/v1","nothing":1}`,
		"/apis/authentication.k8s.io/v1/tokenreviews":                                          `{"kind":"TokenReview","apiVersion":"authentication.k8s.io/v1","spec":{"token":"x"},"nothing":1}`,
		"/apis/authentication.k8s.io/v1/selfsubjectreviews":                                    `{"kind":"SelfSubjectReview","apiVersion":"authentication.k8s.io/v1","nothing":1}`,
		"/apis/authorization.k8s.io/v1/subjectaccessreviews":                                   `{"kind":"SubjectAccessReview","apiVersion":"authorization.k8s.io/v1","spec":{"user":"u","nonResourceAttributes":{"path":"/","verb":"get"}},"nothing":1}`,
		"/apis/authorization.k8s.io/v1/selfsubjectaccessreviews":                               `{"kind":"SelfSubjectAccessReview","apiVersion":"authorization.k8s.io/v1","spec":{"nonResourceAttributes":{"path":"/","verb":"get"}},"nothing":1}`,
		"/apis/authorization.k8s.io/v1/namespaces/" + namespace + "/localsubjectaccessreviews": `{"kind":"LocalSubjectAccessReview","apiVersion":"authorization.k8s.io/v1","metadata":{"namespace":"` + namespace + `"},"spec":{"user":"u","resourceAttributes":{"namespace":"` + namespace + `","verb":"get","resource":"pods"}},"nothing":1}`,
		"/apis/authorization.k8s.io/v1/selfsubjectrulesreviews":                                `{"kind":"SelfSubjectRulesReview","apiVersion":"authorization.k8s.io/v1","spec":{"namespace":"` + namespace + `"},"nothing":1}`,
	} {
		if got := admin.do(t, http.MethodPost, path+"?fieldValidation=Strict", body); got.code != http.StatusBadRequest || !strings.Contains(got.status(t).Message, `unknown field "nothing"`) {
			t.Errorf("%s, Strict: %s", path, got)
		}
		got := admin.do(t, http.MethodPost, path, body)
		if warnings := strings.Join(got.header.Values("Warning"), "\n"); got.code != http.StatusCreated || !strings.Contains(warnings, `unknown field \"nothing\"`) {
			t.Errorf("%s, Warn: %s with warnings %q", path, got, warnings)
		}
		if got := admin.do(t, http.MethodPost, path+"?fieldValidation=Ignore", body); got.code != http.StatusCreated {
			t.Errorf("%s, Ignore: %s", path, got)
		}
		if got := admin.get(t, path); got.code != http.StatusMethodNotAllowed && got.code != http.StatusNotFound {
			t.Errorf("GET %s: %s", path, got)
		}
	}
}
