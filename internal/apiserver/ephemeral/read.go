package ephemeral

import (
	"bytes"
	"io"
	"mime"
	"net/http"

	"k8s.io/apimachinery/pkg/api/meta"
	metainternalversionscheme "k8s.io/apimachinery/pkg/apis/meta/internalversion/scheme"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/endpoints/handlers/negotiation"
	"sigs.k8s.io/json"
)

// createRequest is a request that was read and is valid.
type createRequest struct {
	obj     runtime.Object
	options *metav1.CreateOptions
	// json is whether the response is JSON without indentation.
	json bool
}

// read reads an ordinary request. It returns false for a request that the library's handler must serve; the whole body can
// then be read from the request that it returns.
func (h *Handler) read(k *kind, r *http.Request) (createRequest, *http.Request, bool) {
	options, ok := parseOptions(r)
	if !ok {
		return createRequest{}, r, false
	}
	accepted, ok := h.acceptedBy(r)
	if !ok {
		return createRequest{}, r, false
	}
	decoders, ok := k.decodersOf(r)
	if !ok {
		return createRequest{}, r, false
	}
	body, err := io.ReadAll(io.LimitReader(r.Body, h.MaxBodyBytes+1))
	if err == nil && int64(len(body)) <= h.MaxBodyBytes {
		if obj, ok := h.decode(k, body, decoders, options); ok {
			_ = r.Body.Close()
			return createRequest{obj, options, accepted == h.json}, r, true
		}
	}
	unread := r.WithContext(r.Context())
	unread.Body = replayedBody{io.MultiReader(bytes.NewReader(body), r.Body), r.Body}
	return createRequest{}, unread, false
}

// replayedBody is a body whose beginning was read before and is read again.
type replayedBody struct {
	io.Reader
	io.Closer
}

// parseOptions returns the options in the query of a request, or false if they are invalid.
func parseOptions(r *http.Request) (*metav1.CreateOptions, bool) {
	options := &metav1.CreateOptions{}
	if r.URL.RawQuery != "" {
		if err := metainternalversionscheme.ParameterCodec.DecodeParameters(r.URL.Query(), metav1.SchemeGroupVersion, options); err != nil {
			return nil, false
		}
		if len(validation.ValidateCreateOptions(options)) > 0 {
			return nil, false
		}
	}
	options.SetGroupVersionKind(metav1.SchemeGroupVersion.WithKind("CreateOptions"))
	return options, true
}

// acceptedBy returns the encoding of the response, or false unless the response is the whole object in a media type that is
// served, and not a table or metadata.
func (h *Handler) acceptedBy(r *http.Request) (runtime.Serializer, bool) {
	mediaType, info, err := negotiation.NegotiateOutputMediaType(r, h.Codecs, anyMediaType{})
	return info.Serializer, err == nil && mediaType.Convert == nil && mediaType.UseServerVersion == "" && mediaType.Stream == ""
}

// anyMediaType allows every option of a media type, so that the one that the client prefers is found.
type anyMediaType struct{}

func (anyMediaType) AllowsMediaTypeTransform(string, string, *schema.GroupVersionKind) bool {
	return true
}
func (anyMediaType) AllowsServerVersion(string) bool { return true }
func (anyMediaType) AllowsStreamSchema(string) bool  { return true }

// decodersOf returns the decoders for the Content-Type of a request.
func (k *kind) decodersOf(r *http.Request) (decoders, bool) {
	mediaType := r.Header.Get("Content-Type")
	if mediaType == "" {
		mediaType = runtime.ContentTypeJSON
	}
	if found, ok := k.decoders[mediaType]; ok {
		return found, true
	}
	parsed, _, err := mime.ParseMediaType(mediaType)
	if err != nil {
		return decoders{}, false
	}
	found, ok := k.decoders[parsed]
	return found, ok
}

// decode returns false for a body that is invalid or causes a warning, and for one with owner references, because the
// library's handler removes repeated ones.
func (h *Handler) decode(k *kind, body []byte, d decoders, options *metav1.CreateOptions) (runtime.Object, bool) {
	obj, ok := k.newObject(), true
	switch {
	case options.FieldValidation == metav1.FieldValidationIgnore:
		obj, ok = k.decodeWith(d.lenient, body, obj)
	case d.json:
		ok = h.decodeJSON(k, body, obj)
	default:
		obj, ok = k.decodeWith(d.strict, body, obj)
	}
	if !ok {
		return nil, false
	}
	m, err := meta.Accessor(obj)
	return obj, err == nil && len(m.GetOwnerReferences()) == 0
}

func (k *kind) decodeWith(decoder runtime.Decoder, body []byte, into runtime.Object) (runtime.Object, bool) {
	defaultKind := k.gvk
	obj, gvk, err := decoder.Decode(body, &defaultKind, into)
	return obj, err == nil && gvk != nil && *gvk == k.gvk
}

// decodeJSON decodes a body as the strict decoder of the library does, which parses the body once more to find its kind.
func (h *Handler) decodeJSON(k *kind, body []byte, into runtime.Object) bool {
	faults, err := json.UnmarshalStrict(body, into)
	if err != nil || len(faults) > 0 {
		return false
	}
	given, ok := into.GetObjectKind().(*metav1.TypeMeta)
	version, name := k.gvk.ToAPIVersionAndKind()
	if !ok || given.APIVersion != "" && given.APIVersion != version || given.Kind != "" && given.Kind != name {
		return false
	}
	h.Scheme.Default(into)
	return true
}
