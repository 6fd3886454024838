package ephemeral_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/apis/audit"
	"k8s.io/apiserver/pkg/audit/policy"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/endpoints/filters"
	"k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/apiserver/pkg/registry/rest"
	"k8s.io/apiserver/pkg/warning"

	"lanyard.dev/internal/apiserver/api"
	"lanyard.dev/internal/apiserver/ephemeral"
)

// storage creates a kind: it records the object and returns it, or returns err.
type storage struct {
	newObject  func() runtime.Object
	namespaced bool
	err        error
	created    runtime.Object
	name       string
}

func (s *storage) New() runtime.Object   { return s.newObject() }
func (s *storage) Destroy()              {}
func (s *storage) NamespaceScoped() bool { return s.namespaced }

func (s *storage) Create(ctx context.Context, obj runtime.Object, validate rest.ValidateObjectFunc, _ *metav1.CreateOptions) (runtime.Object, error) {
	if err := validate(ctx, obj); err != nil {
		return nil, err
	}
	s.created = obj.DeepCopyObject()
	return obj, s.err
}

// PreserveRequestObjectMetaSystemFieldsOnSubresourceCreate has an effect for subresources only.
func (s *storage) PreserveRequestObjectMetaSystemFieldsOnSubresourceCreate() bool { return true }

// tokens is the storage of a subresource.
type tokens struct {
	rest.Storage
	storage *storage
}

// keeping is the storage of a subresource that receives the system fields of the metadata.
type keeping struct {
	tokens
	rest.SubresourceObjectMetaPreserver
}

func (s tokens) Create(ctx context.Context, name string, obj runtime.Object, validate rest.ValidateObjectFunc, o *metav1.CreateOptions) (runtime.Object, error) {
	s.storage.name = name
	return s.storage.Create(ctx, obj, validate, o)
}

// plugin refuses objects with a label.
type plugin struct {
	*admission.Handler
	label  string
	mutate bool
}

func (p plugin) refuse(a admission.Attributes) error {
	m, _ := a.GetObject().(metav1.Object)
	if _, ok := m.GetLabels()[p.label]; ok {
		return apierrors.NewForbidden(a.GetResource().GroupResource(), a.GetName(), errors.New(p.label))
	}
	return nil
}

func (p plugin) Admit(_ context.Context, a admission.Attributes, _ admission.ObjectInterfaces) error {
	if p.mutate {
		return p.refuse(a)
	}
	return nil
}

func (p plugin) Validate(_ context.Context, a admission.Attributes, _ admission.ObjectInterfaces) error {
	if !p.mutate {
		return p.refuse(a)
	}
	return nil
}

// server serves a review without a namespace, one in a namespace, and tokens of accounts and pods. The storage of the tokens of
// pods receives the system fields of the metadata. The response to every other request is 418 with the body of the request.
type server struct {
	handler, inner             http.Handler // with and without audit
	review, local, token, kept *storage
	warnings, bodies           []string
	readErr                    error // of reading the body of a request that was passed on
}

func (s *server) AddWarning(_, text string) { s.warnings = append(s.warnings, text) }

func (s *server) ProcessEvents(events ...*audit.Event) bool {
	for _, e := range events {
		if e.Stage == audit.StageResponseComplete && e.RequestObject != nil {
			s.bodies = append(s.bodies, string(e.RequestObject.Raw))
		}
	}
	return true
}

const limit = 4096

func newServer(t *testing.T, level audit.Level) *server {
	t.Helper()
	s := &server{}
	known := api.All().NewScheme()
	codecs := serializer.NewCodecFactory(known)
	config := ephemeral.Config{
		Codecs: codecs, Scheme: known, MaxBodyBytes: limit,
		Admission: admission.NewChainHandler(
			plugin{Handler: admission.NewHandler(admission.Create), label: "mutating", mutate: true},
			plugin{Handler: admission.NewHandler(admission.Create), label: "validating"},
			plugin{Handler: admission.NewHandler(admission.Delete), label: "other-operation", mutate: true},
		),
	}
	s.review = &storage{newObject: func() runtime.Object { return &authorizationv1.SelfSubjectAccessReview{} }}
	s.local = &storage{newObject: func() runtime.Object { return &authorizationv1.LocalSubjectAccessReview{} }, namespaced: true}
	s.token = &storage{newObject: func() runtime.Object { return &authenticationv1.TokenRequest{} }}
	s.kept = &storage{newObject: s.token.newObject}
	group := authorizationv1.SchemeGroupVersion
	tokenRequest := authenticationv1.SchemeGroupVersion.WithKind("TokenRequest")
	core := corev1.SchemeGroupVersion
	account := ephemeral.Resource{GroupVersionResource: core.WithResource("serviceaccounts"), Subresource: "token"}
	pod := ephemeral.Resource{GroupVersionResource: core.WithResource("pods"), Subresource: "token"}
	kinds, err := ephemeral.New(config, []ephemeral.Kind{
		{Resource: ephemeral.Resource{GroupVersionResource: group.WithResource("selfsubjectaccessreviews")}, Kind: group.WithKind("SelfSubjectAccessReview"), Storage: s.review},
		{Resource: ephemeral.Resource{GroupVersionResource: group.WithResource("localsubjectaccessreviews")}, Kind: group.WithKind("LocalSubjectAccessReview"), Storage: s.local},
		{Resource: account, Kind: tokenRequest, Storage: tokens{noCreate{s.token}, s.token}},
		{Resource: pod, Kind: tokenRequest, Storage: keeping{tokens{noCreate{s.kept}, s.kept}, s.kept}},
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ephemeral.New(config, []ephemeral.Kind{{Kind: tokenRequest, Storage: noCreate{s.token}}}); err == nil {
		t.Error("a storage that cannot create was added")
	}
	h := kinds.Before(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusTeapot)
		_, s.readErr = io.Copy(w, r.Body)
	}))
	rules := policy.NewPolicyRuleEvaluator(&audit.Policy{Rules: []audit.PolicyRule{{Level: level}}})
	s.inner = h
	s.handler = filters.WithAuditInit(filters.WithAudit(h, s, rules, func(*http.Request, *request.RequestInfo) bool { return false }))
	return s
}

// noCreate hides the Create method of a storage, and its scope.
type noCreate struct{ rest.Storage }

func (s *server) do(r *http.Request) *httptest.ResponseRecorder {
	resolver := &request.RequestInfoFactory{APIPrefixes: sets.NewString("api", "apis"), GrouplessAPIPrefixes: sets.NewString("api")}
	info, err := resolver.NewRequestInfo(r)
	if err != nil {
		panic(err)
	}
	ctx := request.WithUser(request.WithRequestInfo(r.Context(), info), &user.DefaultInfo{Name: "jane"})
	ctx = warning.WithWarningRecorder(ctx, s)
	response := httptest.NewRecorder()
	s.handler.ServeHTTP(response, r.WithContext(ctx))
	return response
}

const (
	reviews = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
	locals  = "/apis/authorization.k8s.io/v1/namespaces/shop/localsubjectaccessreviews"
	token   = "/api/v1/namespaces/shop/serviceaccounts/cart/token"
	kept    = "/api/v1/namespaces/shop/pods/cart/token"
)

func post(path, body string) *http.Request {
	return httptest.NewRequest(http.MethodPost, path, strings.NewReader(body))
}

// TestPaths checks that a kind is created only at its own path, in its scope.
func TestPaths(t *testing.T) {
	t.Parallel()
	s := newServer(t, audit.LevelNone)
	for _, tt := range []struct {
		method, path string
		want         int
	}{
		{"POST", reviews, 201},
		{"POST", locals, 201},
		{"POST", token, 201},
		{"POST", reviews + "?dryRun=All", 201},
		{"GET", reviews, 418},
		{"PUT", reviews + "/x", 418},
		{"DELETE", reviews, 418},
		{"POST", reviews + "/x", 418},
		{"POST", reviews + "/x/status", 418},
		{"POST", token + "/more", 418},
		{"POST", "/api/v1/namespaces/shop/serviceaccounts/cart", 418},
		{"POST", "/api/v1/namespaces/shop/secrets/cart/token", 418},
		{"POST", "/api/v1/watch/namespaces/shop/serviceaccounts/cart/token", 418},
		{"POST", "/apis/authorization.k8s.io/v1/watch/selfsubjectaccessreviews", 418},
		{"POST", "/api/v1/serviceaccounts/cart/token", 418},
		{"POST", "/apis/authorization.k8s.io/v1/namespaces/shop/selfsubjectaccessreviews", 418},
		{"POST", "/apis/authorization.k8s.io/v1/localsubjectaccessreviews", 418},
		{"POST", "/apis/authorization.k8s.io/v1beta1/selfsubjectaccessreviews", 418},
		{"POST", "/version", 418},
	} {
		if got := s.do(httptest.NewRequest(tt.method, tt.path, strings.NewReader("{}"))); got.Code != tt.want {
			t.Errorf("%s %s: %d %s, want %d", tt.method, tt.path, got.Code, got.Body, tt.want)
		}
	}
	if s.token.name != "cart" {
		t.Errorf("the token is for %q", s.token.name)
	}
	withoutInfo := httptest.NewRecorder()
	s.handler.ServeHTTP(withoutInfo, post(reviews, "{}"))
	if withoutInfo.Code == http.StatusCreated {
		t.Error("a request without request info is served")
	}
}

// TestRequestInfo checks that a request is served only if its request info, which authorization used, describes a create.
func TestRequestInfo(t *testing.T) {
	t.Parallel()
	s := newServer(t, audit.LevelNone)
	good := request.RequestInfo{
		IsResourceRequest: true, Verb: "create", APIGroup: "authorization.k8s.io", APIVersion: "v1", Resource: "selfsubjectaccessreviews", Parts: []string{"selfsubjectaccessreviews"},
	}
	account := request.RequestInfo{
		IsResourceRequest: true, Verb: "create", APIVersion: "v1", Resource: "serviceaccounts", Subresource: "token", Namespace: "shop", Name: "cart",
		Parts: []string{"serviceaccounts", "cart", "token"},
	}
	with := func(info request.RequestInfo, change func(*request.RequestInfo)) *request.RequestInfo {
		change(&info)
		return &info
	}
	for name, tt := range map[string]struct {
		method string
		info   *request.RequestInfo
		want   int
	}{
		"as authorized":           {"POST", &good, 201},
		"token as authorized":     {"POST", &account, 201},
		"another method":          {"GET", &good, 418},
		"another verb":            {"POST", with(good, func(i *request.RequestInfo) { i.Verb = "get" }), 418},
		"no resource":             {"POST", with(good, func(i *request.RequestInfo) { i.IsResourceRequest = false }), 418},
		"a name":                  {"POST", with(good, func(i *request.RequestInfo) { i.Name = "x" }), 418},
		"more parts":              {"POST", with(good, func(i *request.RequestInfo) { i.Parts = append(i.Parts, "x", "y") }), 418},
		"token of no name":        {"POST", with(account, func(i *request.RequestInfo) { i.Name = "" }), 418},
		"token with one part":     {"POST", with(account, func(i *request.RequestInfo) { i.Parts = i.Parts[:1] }), 418},
		"token with fourth part":  {"POST", with(account, func(i *request.RequestInfo) { i.Parts = append(i.Parts, "x") }), 418},
		"token in no namespace":   {"POST", with(account, func(i *request.RequestInfo) { i.Namespace = "" }), 418},
		"review with a namespace": {"POST", with(good, func(i *request.RequestInfo) { i.Namespace = "shop" }), 418},
		"no request info":         {"POST", nil, 418},
	} {
		r := httptest.NewRequest(tt.method, reviews, strings.NewReader("{}"))
		if tt.info != nil {
			r = r.WithContext(request.WithRequestInfo(r.Context(), tt.info))
		}
		response := httptest.NewRecorder()
		s.inner.ServeHTTP(response, r)
		if response.Code != tt.want {
			t.Errorf("%s: %d %s, want %d", name, response.Code, response.Body, tt.want)
		}
	}
}

// TestBodies checks which bodies are served, and that others are passed on whole.
func TestBodies(t *testing.T) {
	t.Parallel()
	const unknown, twice = `{"spec":{"secret":1}}`, `{"spec":{"resourceAttributes":{"verb":"a","verb":"b"}}}`
	for _, tt := range []struct {
		name, path, contentType, body string
		want                          int
	}{
		{name: "JSON", path: reviews, body: "{}", want: 201},
		{name: "JSON, named", path: reviews, contentType: "application/json", body: "{}", want: 201},
		{name: "JSON with a parameter", path: reviews, contentType: "application/json; charset=utf-8", body: "{}", want: 201},
		{name: "YAML", path: reviews, contentType: "application/yaml", body: "spec: {}", want: 201},
		{name: "other type", path: reviews, contentType: "text/plain", body: "{}", want: 418},
		{name: "no type", path: reviews, contentType: "/", body: "{}", want: 418},
		{name: "not JSON", path: reviews, body: "secret", want: 418},
		{name: "owner references", path: token, body: `{"metadata":{"ownerReferences":[{"uid":"u"}]}}`, want: 418},
		{name: "wrong field type", path: reviews, body: `{"spec":"secret"}`, want: 418},
		{name: "its kind", path: reviews, body: `{"apiVersion":"authorization.k8s.io/v1","kind":"SelfSubjectAccessReview"}`, want: 201},
		{name: "its version alone", path: reviews, body: `{"apiVersion":"authorization.k8s.io/v1"}`, want: 201},
		{name: "its kind alone", path: reviews, body: `{"kind":"SelfSubjectAccessReview"}`, want: 201},
		{name: "another version", path: reviews, body: `{"apiVersion":"authorization.k8s.io/v2"}`, want: 418},
		{name: "no version", path: reviews, body: `{"apiVersion":"a/b/c"}`, want: 418},
		{name: "another case", path: reviews, body: `{"KIND":"SelfSubjectAccessReview"}`, want: 418},
		{name: "two values", path: reviews, body: "{}{}", want: 418},
		{name: "null", path: reviews, body: "null", want: 201},
		{name: "null, ignored", path: reviews + "?fieldValidation=Ignore", body: "null", want: 201},
		{name: "another kind", path: reviews, body: `{"apiVersion":"v1","kind":"Pod"}`, want: 418},
		{name: "its internal form", path: reviews, body: `{"apiVersion":"authorization.k8s.io/__internal","kind":"SelfSubjectAccessReview"}`, want: 418},
		{name: "at the limit", path: reviews, body: "{}" + strings.Repeat(" ", limit-2), want: 201},
		{name: "over the limit", path: reviews, body: "{}" + strings.Repeat(" ", limit-1), want: 418},
		{name: "unknown field", path: reviews, body: unknown, want: 418},
		{name: "field twice", path: reviews, body: twice, want: 418},
		{name: "unknown field, warning", path: reviews + "?fieldValidation=Warn", body: unknown, want: 418},
		{name: "unknown field, strict", path: reviews + "?fieldValidation=Strict", body: unknown, want: 418},
		{name: "unknown field, ignored", path: reviews + "?fieldValidation=Ignore", body: unknown, want: 201},
		{name: "wrong directive", path: reviews + "?fieldValidation=Nonsense", body: "{}", want: 418},
		{name: "wrong dry run", path: reviews + "?dryRun=Nonsense", body: "{}", want: 418},
		{name: "its namespace", path: locals, body: `{"metadata":{"namespace":"shop"}}`, want: 201},
		{name: "another namespace", path: locals, body: `{"metadata":{"namespace":"elsewhere"}}`, want: 400},
		{name: "refused by a mutating plugin", path: reviews, body: `{"metadata":{"labels":{"mutating":""}}}`, want: 403},
		{name: "refused by a validating plugin", path: reviews, body: `{"metadata":{"labels":{"validating":""}}}`, want: 403},
		{name: "a plugin for deletions", path: reviews, body: `{"metadata":{"labels":{"other-operation":""}}}`, want: 201},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := newServer(t, audit.LevelNone)
			r := post(tt.path, tt.body)
			if tt.contentType != "" {
				r.Header.Set("Content-Type", tt.contentType)
			}
			got := s.do(r)
			if got.Code != tt.want {
				t.Errorf("%d %s, want %d", got.Code, got.Body, tt.want)
			}
			if got.Code == http.StatusTeapot && got.Body.String() != tt.body {
				t.Errorf("%d bytes of the body are passed on, want %d", got.Body.Len(), len(tt.body))
			}
			if created := s.review.created != nil || s.local.created != nil; created != (tt.want == 201) {
				t.Errorf("the object was created: %v", created)
			}
		})
	}
}

// brokenBody is a body that cannot be read.
type brokenBody struct{ err error }

func (b brokenBody) Read([]byte) (int, error) { return 0, b.err }

// TestErrors checks that the library's handler receives requests that cannot be read, and the caller the errors of the storage.
func TestErrors(t *testing.T) {
	t.Parallel()
	s := newServer(t, audit.LevelNone)
	for _, fault := range []error{io.ErrUnexpectedEOF, apierrors.NewRequestEntityTooLargeError("limit is 1")} {
		got := s.do(httptest.NewRequest("POST", reviews, io.MultiReader(strings.NewReader("{"), brokenBody{fault})))
		if got.Code != http.StatusTeapot || got.Body.String() != "{" || s.readErr != fault {
			t.Errorf("a body that ends with %v: %d %q is passed on, then %v", fault, got.Code, got.Body, s.readErr)
		}
	}
	for _, accept := range []string{"text/html", "application/json;as=Table;v=v1;g=meta.k8s.io,application/json", "application/json;sv=v1"} {
		r := post(reviews, "{}")
		r.Header.Set("Accept", accept)
		if got := s.do(r); got.Code != http.StatusTeapot || got.Body.String() != "{}" {
			t.Errorf("Accept: %s: %d %s, want it passed on", accept, got.Code, got.Body)
		}
	}
	if s.review.created != nil {
		t.Error("an object was created")
	}
	s.review.err = apierrors.NewUnauthorized("no")
	if got := s.do(post(reviews, "{}")); got.Code != http.StatusUnauthorized {
		t.Errorf("an error of the storage: %d %s", got.Code, got.Body)
	}
}

// TestSystemFields checks that only a subresource whose storage keeps the system fields receives them.
func TestSystemFields(t *testing.T) {
	t.Parallel()
	s := newServer(t, audit.LevelNone)
	const body = `{"metadata":{"uid":"u","managedFields":[{"manager":"m"}]}}`
	for path, tt := range map[string]struct {
		storage *storage
		uid     string
	}{reviews: {s.review, ""}, token: {s.token, ""}, kept: {s.kept, "u"}} {
		if got := s.do(post(path, body)); got.Code != http.StatusCreated {
			t.Fatalf("%s: %d %s", path, got.Code, got.Body)
		}
		m := tt.storage.created.(metav1.Object)
		if string(m.GetUID()) != tt.uid || m.GetManagedFields() != nil {
			t.Errorf("%s: UID %q, managed fields %v, want %q and none", path, m.GetUID(), m.GetManagedFields(), tt.uid)
		}
	}
}

// TestAuditedBodies checks at which audit levels the body is recorded.
func TestAuditedBodies(t *testing.T) {
	t.Parallel()
	for level, want := range map[audit.Level]int{audit.LevelNone: 0, audit.LevelMetadata: 0, audit.LevelRequest: 1, audit.LevelRequestResponse: 1} {
		s := newServer(t, level)
		if got := s.do(post(reviews, `{"spec":{"resourceAttributes":{"verb":"get"}}}`)); got.Code != http.StatusCreated {
			t.Fatalf("%d %s", got.Code, got.Body)
		}
		if len(s.bodies) != want || want > 0 && !strings.Contains(s.bodies[0], `"verb":"get"`) {
			t.Errorf("%s: bodies %q, want %d", level, s.bodies, want)
		}
	}
}
