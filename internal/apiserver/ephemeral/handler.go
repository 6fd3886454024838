// Package ephemeral answers kinds that are never stored: token requests and reviews.
//
// The library's handler tracks field ownership of an object that nothing reads again, encodes it for an audit level
// that does not want it, and runs it in a goroutine of its own; for a token that is a third of the whole request. This
// package answers the requests that have nothing unusual about them, with the same admission, audit and metrics. It passes
// every other one on to the library's handler: a body that cannot be decoded, an unknown field, an option that
// is refused, an answer as a table. So the library alone words refusals and warnings. A test of package apiserver sends the same
// requests to both handlers and compares what they answer.
package ephemeral

import (
	"context"
	"fmt"
	"net/http"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/endpoints/handlers/negotiation"
	"k8s.io/apiserver/pkg/endpoints/handlers/responsewriters"
	"k8s.io/apiserver/pkg/endpoints/metrics"
	"k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/apiserver/pkg/registry/rest"
)

// Resource is where a kind is posted to.
type Resource struct {
	schema.GroupVersionResource
	Subresource string
}

// Config is what every kind is served with.
type Config struct {
	Codecs    runtime.NegotiatedSerializer
	Scheme    *runtime.Scheme
	Admission admission.Interface
	// MaxBodyBytes bounds the body of a request that is answered here.
	MaxBodyBytes int64
}

// Handler answers plain requests for the kinds it knows and passes everything else on.
type Handler struct {
	Config
	kinds map[Resource]*kind
}

// kind is one kind with its way to answer.
type kind struct {
	gvk schema.GroupVersionKind
	// namespaced is the one scope the kind is served in. Authorization was asked in the scope of the URL.
	namespaced bool
	// keepsMeta leaves the system fields of metadata to the storage, which reads them.
	keepsMeta bool
	fresh     func() runtime.Object
	create    create
	// decoders turn a body into the kind, by media type. The strict ones report unknown and repeated fields.
	decoders map[string]decoders
	// measured counts the requests that a handler answers.
	measured func(http.HandlerFunc) http.HandlerFunc
}

type create func(ctx context.Context, name string, obj runtime.Object, validate rest.ValidateObjectFunc, options *metav1.CreateOptions) (runtime.Object, error)

type decoders struct{ plain, strict runtime.Decoder }

// Kind is a kind that is never stored. Storage is a rest.Creater that reports its scope, or a rest.NamedCreater for a
// subresource, which is namespaced.
type Kind struct {
	Resource Resource
	Kind     schema.GroupVersionKind
	Storage  rest.Storage
}

// New returns a handler of the kinds.
func New(c Config, kinds []Kind) (*Handler, error) {
	h := &Handler{Config: c, kinds: map[Resource]*kind{}}
	for _, k := range kinds {
		if !h.add(k.Resource, k.Kind, k.Storage) {
			return nil, fmt.Errorf("serve %s %s: its storage creates nothing", k.Resource.GroupVersionResource.Resource, k.Resource.Subresource)
		}
	}
	return h, nil
}

func (h *Handler) add(resource Resource, gvk schema.GroupVersionKind, storage rest.Storage) bool {
	k := &kind{gvk: gvk, namespaced: true, fresh: storage.New, decoders: h.decodersTo(gvk.GroupVersion())}
	if s, ok := storage.(rest.Scoper); ok {
		k.namespaced = s.NamespaceScoped()
	}
	if s, ok := storage.(rest.SubresourceObjectMetaPreserver); ok && resource.Subresource != "" {
		k.keepsMeta = s.PreserveRequestObjectMetaSystemFieldsOnSubresourceCreate()
	}
	switch s := storage.(type) {
	case rest.NamedCreater:
		k.create = s.Create
	case rest.Creater:
		k.create = func(ctx context.Context, _ string, obj runtime.Object, v rest.ValidateObjectFunc, o *metav1.CreateOptions) (runtime.Object, error) {
			return s.Create(ctx, obj, v, o)
		}
	default:
		return false
	}
	k.measured = func(serve http.HandlerFunc) http.HandlerFunc {
		return metrics.InstrumentHandlerFunc("POST", resource.Group, resource.Version, resource.Resource, resource.Subresource,
			"resource", metrics.APIServerComponent, false, "", serve)
	}
	h.kinds[resource] = k
	return true
}

func (h *Handler) decodersTo(gv schema.GroupVersion) map[string]decoders {
	found := map[string]decoders{}
	for _, info := range h.Codecs.SupportedMediaTypes() {
		d := decoders{plain: h.Codecs.DecoderToVersion(info.Serializer, gv)}
		d.strict = d.plain
		if info.StrictSerializer != nil {
			d.strict = h.Codecs.DecoderToVersion(info.StrictSerializer, gv)
		}
		found[info.MediaType] = d
	}
	return found
}

// Before returns a handler that passes the requests that h does not answer on to next.
func (h *Handler) Before(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		info, ok := request.RequestInfoFrom(r.Context())
		if !ok {
			next.ServeHTTP(w, r)
			return
		}
		k := h.find(r, info)
		if k == nil {
			next.ServeHTTP(w, r)
			return
		}
		q, r, ok := h.read(k, r)
		if !ok {
			next.ServeHTTP(w, r)
			return
		}
		k.measured(func(w http.ResponseWriter, r *http.Request) { h.serve(k, q, w, r) })(w, r)
	})
}

// find returns the kind that a request creates, or nil. The verb must be the one that was authorized: a path under
// /watch or /proxy names the same resource, and is asked for with another verb. So must the scope.
func (h *Handler) find(r *http.Request, info *request.RequestInfo) *kind {
	if r.Method != http.MethodPost || !info.IsResourceRequest || info.Verb != "create" {
		return nil
	}
	k, ok := h.kinds[Resource{
		GroupVersionResource: schema.GroupVersionResource{Group: info.APIGroup, Version: info.APIVersion, Resource: info.Resource},
		Subresource:          info.Subresource,
	}]
	if !ok || k.namespaced != (info.Namespace != "") {
		return nil
	}
	// Parts are RESOURCE, or RESOURCE/NAME/SUBRESOURCE; nothing may follow.
	parts := 1
	if info.Subresource != "" {
		parts = 3
	}
	if len(info.Parts) != parts || (info.Subresource != "") != (info.Name != "") {
		return nil
	}
	return k
}

func (h *Handler) serve(k *kind, q question, w http.ResponseWriter, r *http.Request) {
	gv := k.gvk.GroupVersion()
	result, err := h.answer(k, q, r)
	if err != nil {
		responsewriters.ErrorNegotiated(err, h.Codecs, gv, w, r)
		return
	}
	responsewriters.WriteObjectNegotiated(h.Codecs, negotiation.DefaultEndpointRestrictions, gv, w, r, http.StatusCreated, result, false)
}
