package apiserver_test

import (
	"bytes"
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"testing"

	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"sigs.k8s.io/yaml"
)

// probe is a request that is sent to both handlers.
type probe struct {
	method, path, query string
	header              map[string]string
	body                []byte
	caller              string // of callers; the administrator if empty
}

// ephemeralKind is a kind that is answered and never stored.
type ephemeralKind struct {
	path, name string
	obj        runtime.Object
	gv         schema.GroupVersion
}

func ephemeralKinds() []ephemeralKind {
	health := &authorizationv1.NonResourceAttributes{Verb: "get", Path: "/healthz"}
	authn, authz := authenticationv1.SchemeGroupVersion, authorizationv1.SchemeGroupVersion
	pods := &authorizationv1.ResourceAttributes{Namespace: "default", Verb: "list", Resource: "pods"}
	return []ephemeralKind{
		{"/api/v1/namespaces/default/serviceaccounts/app/token", "TokenRequest", &authenticationv1.TokenRequest{}, authn},
		{"/apis/authentication.k8s.io/v1/tokenreviews", "TokenReview", &authenticationv1.TokenReview{Spec: authenticationv1.TokenReviewSpec{Token: "none"}}, authn},
		{"/apis/authentication.k8s.io/v1/selfsubjectreviews", "SelfSubjectReview", &authenticationv1.SelfSubjectReview{}, authn},
		{"/apis/authorization.k8s.io/v1/subjectaccessreviews", "SubjectAccessReview", &authorizationv1.SubjectAccessReview{
			Spec: authorizationv1.SubjectAccessReviewSpec{User: "u", NonResourceAttributes: health}}, authz},
		{"/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", "SelfSubjectAccessReview", &authorizationv1.SelfSubjectAccessReview{
			Spec: authorizationv1.SelfSubjectAccessReviewSpec{NonResourceAttributes: health}}, authz},
		{"/apis/authorization.k8s.io/v1/namespaces/default/localsubjectaccessreviews", "LocalSubjectAccessReview", &authorizationv1.LocalSubjectAccessReview{
			Spec: authorizationv1.SubjectAccessReviewSpec{User: "u", ResourceAttributes: pods}}, authz},
		{"/apis/authorization.k8s.io/v1/selfsubjectrulesreviews", "SelfSubjectRulesReview", &authorizationv1.SelfSubjectRulesReview{
			Spec: authorizationv1.SelfSubjectRulesReviewSpec{Namespace: "default"}}, authz},
	}
}

const protobuf = runtime.ContentTypeProtobuf

// The tables vary one thing each: bodies, in each form they can be written in, and everything else about a request.
var (
	hostileBodies = map[string]func(k ephemeralKind, body map[string]any){
		"valid":             func(ephemeralKind, map[string]any) {},
		"without a kind":    func(_ ephemeralKind, b map[string]any) { delete(b, "kind"); delete(b, "apiVersion") },
		"unknown field":     func(_ ephemeralKind, b map[string]any) { b["unknown"] = 1 },
		"unknown in spec":   func(_ ephemeralKind, b map[string]any) { b["spec"] = map[string]any{"tokn": "x"} },
		"spec is a text":    func(_ ephemeralKind, b map[string]any) { b["spec"] = "a secret" },
		"another kind":      func(k ephemeralKind, b map[string]any) { b["kind"] = otherKind(k) },
		"unknown kind":      func(_ ephemeralKind, b map[string]any) { b["kind"] = "Nonsense" },
		"kind of metadata":  func(_ ephemeralKind, b map[string]any) { b["kind"] = "DeleteOptions" },
		"a Pod":             func(_ ephemeralKind, b map[string]any) { b["kind"], b["apiVersion"] = "Pod", "v1" },
		"unknown version":   func(k ephemeralKind, b map[string]any) { b["apiVersion"] = k.gv.Group + "/v9" },
		"internal version":  func(k ephemeralKind, b map[string]any) { b["apiVersion"] = k.gv.Group + "/__internal" },
		"version not named": func(_ ephemeralKind, b map[string]any) { delete(b, "apiVersion") },
		"name":              metadata("name", "other"),
		"name of the path":  metadata("name", "app"),
		"namespace":         metadata("namespace", "default"),
		"wrong namespace":   metadata("namespace", "kube-system"),
		"generateName":      metadata("generateName", "x-"),
		"uid":               metadata("uid", "00000000-0000-0000-0000-000000000000"),
		"resourceVersion":   metadata("resourceVersion", "7"),
		"label":             metadata("labels", map[string]any{"a": "b"}),
		"managed fields":    metadata("managedFields", []any{map[string]any{"manager": "m", "operation": "Update", "apiVersion": "v1", "fieldsType": "FieldsV1", "fieldsV1": map[string]any{}}}),
		"owners twice": metadata("ownerReferences", []any{
			map[string]any{"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "u"}, map[string]any{"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "u"}}),
		"status":    func(_ ephemeralKind, b map[string]any) { b["status"] = map[string]any{} },
		"too large": func(_ ephemeralKind, b map[string]any) { b["padding"] = strings.Repeat("x", 70<<10) },
		"largest":   metadata("annotations", map[string]any{"a": strings.Repeat("x", 60<<10)}),
		"long audiences": func(_ ephemeralKind, b map[string]any) {
			b["spec"] = map[string]any{"audiences": []any{"a", "b"}, "expirationSeconds": 1}
		},
	}
	rawBodies = map[string]func(body []byte) []byte{
		"empty":           func([]byte) []byte { return nil },
		"truncated":       func(b []byte) []byte { return b[:len(b)/2] },
		"more after it":   func(b []byte) []byte { return append(slices.Clone(b), " {}"...) },
		"repeated field":  func(b []byte) []byte { return append([]byte(`{"kind":"x","spec":{},`), b[1:]...) },
		"null":            func([]byte) []byte { return []byte("null") },
		"a list":          func([]byte) []byte { return []byte("[]") },
		"no UTF-8":        func([]byte) []byte { return []byte("{\"spec\":{\"token\":\"\xff\xfe\"}}") },
		"another case":    func(b []byte) []byte { return bytes.Replace(b, []byte(`"spec"`), []byte(`"Spec"`), 1) },
		"deeply nested":   func([]byte) []byte { return []byte(strings.Repeat("[", 12000)) },
		"protobuf's mark": func([]byte) []byte { return []byte("k8s\x00garbage") },
	}
	changes = map[string]func(p *probe){
		"no content type":            header("Content-Type", ""),
		"content type with charset":  header("Content-Type", "application/json; charset=utf-8"),
		"content type in capitals":   header("Content-Type", "Application/JSON"),
		"text":                       header("Content-Type", "text/plain"),
		"a patch":                    header("Content-Type", "application/merge-patch+json"),
		"content type malformed":     header("Content-Type", "/;;"),
		"CBOR":                       header("Content-Type", "application/cbor"),
		"YAML announced":             header("Content-Type", "application/yaml"),
		"protobuf announced":         header("Content-Type", protobuf),
		"accept YAML":                header("Accept", "application/yaml"),
		"accept protobuf":            header("Accept", protobuf),
		"accept anything":            header("Accept", "text/html, */*;q=0.1"),
		"accept a picture":           header("Accept", "image/png"),
		"accept CBOR":                header("Accept", "application/cbor"),
		"accept a table":             header("Accept", "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"),
		"accept a table only":        header("Accept", "application/json;as=Table;v=v1;g=meta.k8s.io"),
		"accept an unknown table":    header("Accept", "application/json;as=Table;v=v9;g=meta.k8s.io"),
		"accept metadata":            header("Accept", "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io"),
		"accept an unknown view":     header("Accept", "application/json;as=Nonsense;v=v1;g=meta.k8s.io,application/yaml"),
		"accept metadata first":      header("Accept", "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io,application/yaml"),
		"accept a version first":     header("Accept", "application/json;sv=v1,application/yaml"),
		"accept a server version":    header("Accept", "application/json;sv=v1"),
		"accept a stream":            header("Accept", "application/json;stream=watch"),
		"accept an unknown stream":   header("Accept", "application/json;stream=other,application/yaml"),
		"accept pretty":              header("Accept", "application/json;pretty=1"),
		"accept a malformed list":    header("Accept", ";;,,"),
		"accept gzip":                header("Accept-Encoding", "gzip"),
		"by curl":                    header("User-Agent", "curl/8"),
		"dryRun":                     query("dryRun=All"),
		"dryRun wrong":               query("dryRun=Some"),
		"dryRun twice":               query("dryRun=All&dryRun=All"),
		"dryRun empty":               query("dryRun="),
		"fieldValidation Strict":     query("fieldValidation=Strict"),
		"fieldValidation Warn":       query("fieldValidation=Warn"),
		"fieldValidation Ignore":     query("fieldValidation=Ignore"),
		"fieldValidation wrong":      query("fieldValidation=Nonsense"),
		"fieldManager":               query("fieldManager=m"),
		"fieldManager too long":      query("fieldManager=" + strings.Repeat("m", 200)),
		"fieldManager not printable": query("fieldManager=%00"),
		"pretty":                     query("pretty=true"),
		"pretty, not a boolean":      query("pretty=x"),
		"unknown parameter":          query("garbage=1&x"),
		"malformed query":            query("%zz&a;b"),
		"watch":                      query("watch=true"),
		"timeout":                    query("timeout=7s"),
		"timeout wrong":              query("timeout=x"),
		"wrong in many ways": func(p *probe) {
			p.query, p.body = "dryRun=Some&fieldValidation=x", []byte("{")
			p.header["Content-Type"] = "text/plain"
		},
		"GET":                   method(http.MethodGet),
		"PUT":                   method(http.MethodPut),
		"PATCH":                 method(http.MethodPatch),
		"DELETE":                method(http.MethodDelete),
		"HEAD":                  method(http.MethodHead),
		"unknown method":        method("NONSENSE"),
		"path with more":        func(p *probe) { p.path += "/more" },
		"path with a slash":     func(p *probe) { p.path += "/" },
		"path under watch":      func(p *probe) { p.path = strings.Replace(p.path, "/v1/", "/v1/watch/", 1) },
		"unknown namespace":     func(p *probe) { p.path = strings.Replace(p.path, "/default/", "/nowhere/", 1) },
		"terminating namespace": func(p *probe) { p.path = strings.Replace(p.path, "/default/", "/ending/", 1) },
		"unknown account":       func(p *probe) { p.path = strings.Replace(p.path, "/app/", "/nobody/", 1) },
		"terminating account":   func(p *probe) { p.path = strings.Replace(p.path, "/app/", "/ending/", 1) },
		"default account":       func(p *probe) { p.path = strings.Replace(p.path, "/app/", "/default/", 1) },
		"without permission":    func(p *probe) { p.caller = "stranger" },
		"without a name":        func(p *probe) { p.caller = "anonymous" },
		"by a node":             func(p *probe) { p.caller = "node" },
		"impersonation":         header("Impersonate-User", "jane"),
		"impersonation of a node": func(p *probe) {
			p.header["Impersonate-User"], p.header["Impersonate-Group"] = "system:node:n", "system:nodes"
		},
		"impersonation refused":    func(p *probe) { p.caller = "stranger"; p.header["Impersonate-User"] = "jane" },
		"impersonation of no user": header("Impersonate-Group", "g"),
		"bad token":                func(p *probe) { p.caller = "anonymous"; p.header["Authorization"] = "Bearer x" },
	}
)

func otherKind(k ephemeralKind) string {
	switch {
	case k.gv.Group == authorizationv1.GroupName && k.name != "SubjectAccessReview":
		return "SubjectAccessReview"
	case k.gv.Group == authorizationv1.GroupName:
		return "SelfSubjectAccessReview"
	case k.name != "TokenReview":
		return "TokenReview"
	}
	return "TokenRequest"
}

func metadata(field string, value any) func(ephemeralKind, map[string]any) {
	return func(_ ephemeralKind, b map[string]any) { b["metadata"] = map[string]any{field: value} }
}

func header(name, value string) func(*probe) { return func(p *probe) { p.header[name] = value } }
func query(text string) func(*probe)         { return func(p *probe) { p.query = text } }
func method(name string) func(*probe)        { return func(p *probe) { p.method = name } }

// probes returns every request of the tables, by name.
func probes(t *testing.T, codecs serializer.CodecFactory) map[string]probe {
	t.Helper()
	all := map[string]probe{}
	for _, k := range ephemeralKinds() {
		add := func(name, contentType string, body []byte, change func(*probe)) {
			p := probe{method: http.MethodPost, path: k.path, header: map[string]string{"Content-Type": contentType}, body: body}
			if change != nil {
				change(&p)
			}
			all[k.name+"/"+name] = p
		}
		plain := toJSON(t, k.obj, k.gv.WithKind(k.name))
		for name, change := range hostileBodies {
			var fields map[string]any
			must(t, json.Unmarshal(plain, &fields))
			change(k, fields)
			text, err := json.Marshal(fields)
			must(t, err)
			asYAML, err := yaml.JSONToYAML(text)
			must(t, err)
			add("JSON/"+name, runtime.ContentTypeJSON, text, nil)
			add("YAML/"+name, runtime.ContentTypeYAML, asYAML, nil)
			add("JSON/Strict/"+name, runtime.ContentTypeJSON, text, query("fieldValidation=Strict"))
			add("JSON/Ignore/"+name, runtime.ContentTypeJSON, text, query("fieldValidation=Ignore"))
			if binary, ok := toProtobuf(codecs, text); ok {
				add("protobuf/"+name, protobuf, binary, nil)
				add("protobuf/truncated/"+name, protobuf, binary[:len(binary)-3], nil)
			}
		}
		for name, change := range rawBodies {
			add("JSON/"+name, runtime.ContentTypeJSON, change(plain), nil)
			add("YAML/"+name, runtime.ContentTypeYAML, change(plain), nil)
			add("protobuf/"+name, protobuf, change(plain), nil)
		}
		for name, change := range changes {
			add(name, runtime.ContentTypeJSON, plain, change)
		}
	}
	return all
}

func toJSON(t *testing.T, obj runtime.Object, gvk schema.GroupVersionKind) []byte {
	t.Helper()
	obj.GetObjectKind().SetGroupVersionKind(gvk)
	text, err := json.Marshal(obj)
	must(t, err)
	return text
}

// toProtobuf returns false if text is not an object with a protobuf form.
func toProtobuf(codecs serializer.CodecFactory, text []byte) ([]byte, bool) {
	obj, _, err := codecs.UniversalDeserializer().Decode(text, nil, nil)
	if err != nil {
		return nil, false
	}
	info, _ := runtime.SerializerInfoForMediaType(codecs.SupportedMediaTypes(), protobuf)
	binary, err := runtime.Encode(info.Serializer, obj)
	return binary, err == nil && len(binary) > 3
}
