// Package ephemeral serves the creation of kinds that are never stored: token requests and reviews.
//
// The library's handler for create tracks field ownership of an object that nothing reads again, encodes the object for
// an audit level that may not record it, and runs in a goroutine of its own. That takes a third of the time of a token
// request. This package serves ordinary requests, with the same admission, audit and metrics. It passes all other requests
// to the library's handler: a body that cannot be decoded, an unknown field, an invalid option, a response as a table. So
// the library alone writes refusals and warnings. A differential test in package apiserver sends the same requests to both
// handlers and compares the responses, audit events and warnings.
package ephemeral

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"reflect"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/admission"
	auditinternal "k8s.io/apiserver/pkg/apis/audit"
	"k8s.io/apiserver/pkg/audit"
	"k8s.io/apiserver/pkg/endpoints/handlers/negotiation"
	"k8s.io/apiserver/pkg/endpoints/handlers/responsewriters"
	"k8s.io/apiserver/pkg/endpoints/metrics"
	"k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/apiserver/pkg/registry/rest"
	"k8s.io/apiserver/pkg/util/dryrun"
)

// Resource is the resource, or the subresource, that a kind is posted to.
type Resource struct {
	schema.GroupVersionResource
	Subresource string
}

// Config configures a Handler.
type Config struct {
	Codecs    runtime.NegotiatedSerializer
	Scheme    *runtime.Scheme
	Admission admission.Interface
	// MaxBodyBytes is the largest body of a request that is served here.
	MaxBodyBytes int64
}

// Handler serves ordinary requests for its kinds.
type Handler struct {
	Config
	kinds map[Resource]*kind
	json  runtime.Serializer // the encoding as JSON without indentation
}

// kind is a kind that is served.
type kind struct {
	gvk schema.GroupVersionKind
	// namespaced is the scope of the kind. The scope of the URL must be the same, because the request was authorized for the
	// scope of the URL.
	namespaced bool
	// keepsSystemFields is whether the storage receives the system fields of the metadata.
	keepsSystemFields bool
	newObject         func() runtime.Object
	goType            reflect.Type // of newObject
	create            createFunc
	decoders          map[string]decoders // by media type
	// instrument returns a handler that updates the library's metrics of requests.
	instrument func(http.HandlerFunc) http.HandlerFunc
}

// createFunc creates an object with the Create method of a storage. name is "" unless the kind is posted to a subresource.
type createFunc func(ctx context.Context, name string, obj runtime.Object, validate rest.ValidateObjectFunc, options *metav1.CreateOptions) (runtime.Object, error)

// decoders decode a body. The strict one reports unknown and repeated fields.
type decoders struct {
	lenient, strict runtime.Decoder
	json            bool // whether the bodies are JSON
}

// Kind is a kind that is never stored.
type Kind struct {
	Resource Resource
	Kind     schema.GroupVersionKind
	// Storage creates objects of the kind. It is a rest.Creater that implements rest.Scoper, or a rest.NamedCreater for a
	// subresource, which is namespaced unless the storage is a rest.Scoper.
	Storage rest.Storage
}

// New returns a handler of the kinds.
func New(c Config, kinds []Kind) (*Handler, error) {
	h := &Handler{Config: c, kinds: map[Resource]*kind{}}
	if info, ok := runtime.SerializerInfoForMediaType(c.Codecs.SupportedMediaTypes(), runtime.ContentTypeJSON); ok {
		h.json = info.Serializer
	}
	for _, k := range kinds {
		if !h.add(k.Resource, k.Kind, k.Storage) {
			return nil, fmt.Errorf("serve %s %s: its storage cannot create objects", k.Resource.GroupVersionResource.Resource, k.Resource.Subresource)
		}
	}
	return h, nil
}

// add adds a kind and reports whether its storage can create objects.
func (h *Handler) add(resource Resource, gvk schema.GroupVersionKind, storage rest.Storage) bool {
	k := &kind{gvk: gvk, namespaced: true, newObject: storage.New, goType: reflect.TypeOf(storage.New()), decoders: h.decodersFor(gvk.GroupVersion())}
	if s, ok := storage.(rest.Scoper); ok {
		k.namespaced = s.NamespaceScoped()
	}
	if s, ok := storage.(rest.SubresourceObjectMetaPreserver); ok && resource.Subresource != "" {
		k.keepsSystemFields = s.PreserveRequestObjectMetaSystemFieldsOnSubresourceCreate()
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
	k.instrument = func(serve http.HandlerFunc) http.HandlerFunc {
		return metrics.InstrumentHandlerFunc("POST", resource.Group, resource.Version, resource.Resource, resource.Subresource,
			"resource", metrics.APIServerComponent, false, "", serve)
	}
	h.kinds[resource] = k
	return true
}

// decodersFor returns the decoders of each media type for a version.
func (h *Handler) decodersFor(gv schema.GroupVersion) map[string]decoders {
	found := map[string]decoders{}
	for _, info := range h.Codecs.SupportedMediaTypes() {
		d := decoders{lenient: h.Codecs.DecoderToVersion(info.Serializer, gv), json: info.MediaType == runtime.ContentTypeJSON}
		d.strict = d.lenient
		if info.StrictSerializer != nil {
			d.strict = h.Codecs.DecoderToVersion(info.StrictSerializer, gv)
		}
		found[info.MediaType] = d
	}
	return found
}

// Before returns a handler that serves ordinary requests for the kinds with h, and all other requests with next.
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
		create, r, ok := h.read(k, r)
		if !ok {
			next.ServeHTTP(w, r)
			return
		}
		k.instrument(func(w http.ResponseWriter, r *http.Request) { h.serve(k, create, w, r) })(w, r)
	})
}

// find returns the kind that a request creates, or nil. It checks the verb and the scope that were authorized, because other
// paths name the same resource: a path under /watch or /proxy is authorized with another verb.
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
	// The parts are RESOURCE, or RESOURCE, NAME and SUBRESOURCE.
	parts := 1
	if info.Subresource != "" {
		parts = 3
	}
	if len(info.Parts) != parts || (info.Subresource != "") != (info.Name != "") {
		return nil
	}
	return k
}

// serve writes the response to a request.
func (h *Handler) serve(k *kind, create createRequest, w http.ResponseWriter, r *http.Request) {
	gv := k.gvk.GroupVersion()
	result, err := h.admitAndCreate(k, create, r)
	if err != nil {
		responsewriters.ErrorNegotiated(err, h.Codecs, gv, w, r)
		return
	}
	if create.json && writeJSON(k, result, w, r) {
		return
	}
	responsewriters.WriteObjectNegotiated(h.Codecs, negotiation.DefaultEndpointRestrictions, gv, w, r, http.StatusCreated, result, false)
}

// writeJSON writes the response as the library does, without the library's traces and conversions. It returns false, and writes
// nothing, if the library must write the response: it is large, and so may be compressed, or the audit log records it.
func writeJSON(k *kind, result runtime.Object, w http.ResponseWriter, r *http.Request) bool {
	if reflect.TypeOf(result) != k.goType || recordsBody(audit.AuditContextFrom(r.Context())) {
		return false
	}
	result.GetObjectKind().SetGroupVersionKind(k.gvk)
	written := false
	request.TrackSerializeResponseObjectLatency(r.Context(), func() {
		body, err := json.Marshal(result)
		if err != nil || len(body) > maxUncompressed {
			return
		}
		written = true
		w.Header().Set("Content-Type", runtime.ContentTypeJSON)
		w.WriteHeader(http.StatusCreated)
		// The client has gone if this fails.
		_, _ = w.Write(append(body, '\n'))
	})
	return written
}

// maxUncompressed is less than the size from which the library compresses a response.
const maxUncompressed = 64 << 10

// admitAndCreate runs the admission plugins for the object of a request, and returns the object that the storage creates.
func (h *Handler) admitAndCreate(k *kind, create createRequest, r *http.Request) (runtime.Object, error) {
	info, _ := request.RequestInfoFrom(r.Context())
	ctx := request.WithNamespace(r.Context(), info.Namespace)
	gvr := schema.GroupVersionResource{Group: info.APIGroup, Version: info.APIVersion, Resource: info.Resource}
	m, err := meta.Accessor(create.obj)
	if err != nil {
		return nil, err
	}
	if c := audit.AuditContextFrom(ctx); c.Enabled() && (recordsBody(c) || identifies(m, info)) {
		audit.LogRequestObject(ctx, create.obj, k.gvk.GroupVersion(), gvr, info.Subresource, h.Codecs)
	}
	if !k.keepsSystemFields {
		rest.WipeObjectMetaSystemFields(m)
	}
	if err := rest.EnsureObjectNamespaceMatchesRequestNamespace(info.Namespace, m); err != nil {
		return nil, err
	}
	m.SetManagedFields(nil)
	name := info.Name
	if name == "" {
		name = m.GetName()
	}
	caller, _ := request.UserFrom(ctx)
	attributes := admission.NewAttributesRecord(create.obj, nil, k.gvk, info.Namespace, name, gvr, info.Subresource,
		admission.Create, create.options, dryrun.IsDryRun(create.options.DryRun), caller)
	admit := admission.WithAudit(h.Admission)
	interfaces := admission.NewObjectInterfacesFromScheme(h.Scheme)
	if mutating, ok := admit.(admission.MutationInterface); ok && mutating.Handles(admission.Create) {
		if err := mutating.Admit(ctx, attributes, interfaces); err != nil {
			return nil, err
		}
	}
	return k.create(ctx, info.Name, create.obj, rest.AdmissionToValidateObjectFunc(admit, attributes, interfaces), create.options)
}

// recordsBody reports whether the audit level of the request includes its body.
func recordsBody(c *audit.AuditContext) bool {
	return c.Enabled() && !c.GetEventLevel().Less(auditinternal.LevelRequest)
}

// identifies reports whether metadata identifies an object more exactly than the path of the request does. An audit event of
// any level then records what the metadata adds.
func identifies(m metav1.Object, path *request.RequestInfo) bool {
	return m.GetUID() != "" || m.GetResourceVersion() != "" || path.Name == "" && m.GetName() != "" || path.Namespace == "" && m.GetNamespace() != ""
}
