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
)

// question is a request that was read without a fault.
type question struct {
	obj     runtime.Object
	options *metav1.CreateOptions
}

// read reads a request of the plain form. It returns false for every other request, which the library's handler is to
// answer, with the whole body still to be read from the request that read returns.
func (h *Handler) read(k *kind, r *http.Request) (question, *http.Request, bool) {
	options, ok := parseOptions(r)
	if !ok || !h.wantsPlainAnswer(r) {
		return question{}, r, false
	}
	by, ok := k.decodersFor(r)
	if !ok {
		return question{}, r, false
	}
	body, err := io.ReadAll(io.LimitReader(r.Body, h.MaxBodyBytes+1))
	if err == nil && int64(len(body)) <= h.MaxBodyBytes {
		if obj, ok := k.decode(body, by, options); ok {
			_ = r.Body.Close()
			return question{obj, options}, r, true
		}
	}
	again := r.WithContext(r.Context())
	again.Body = replayed{io.MultiReader(bytes.NewReader(body), r.Body), r.Body}
	return question{}, again, false
}

// replayed is a body whose beginning was read before.
type replayed struct {
	io.Reader
	io.Closer
}

// parseOptions returns false for parameters that are refused.
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

// wantsPlainAnswer tells whether the answer is to be the object itself, in a form that is served: no table, no metadata alone.
func (h *Handler) wantsPlainAnswer(r *http.Request) bool {
	form, _, err := negotiation.NegotiateOutputMediaType(r, h.Codecs, anyForm{})
	return err == nil && form.Convert == nil && form.UseServerVersion == "" && form.Stream == ""
}

// anyForm finds the form that is wanted most, whether or not it can be had.
type anyForm struct{}

func (anyForm) AllowsMediaTypeTransform(string, string, *schema.GroupVersionKind) bool { return true }
func (anyForm) AllowsServerVersion(string) bool                                        { return true }
func (anyForm) AllowsStreamSchema(string) bool                                         { return true }

func (k *kind) decodersFor(r *http.Request) (decoders, bool) {
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

// decode returns false for a body that is refused, for one that is warned of, and for one with owner references, since the
// library removes those that are repeated.
func (k *kind) decode(body []byte, by decoders, options *metav1.CreateOptions) (runtime.Object, bool) {
	decoder := by.strict
	if options.FieldValidation == metav1.FieldValidationIgnore {
		decoder = by.plain
	}
	defaultKind := k.gvk
	obj, gvk, err := decoder.Decode(body, &defaultKind, k.fresh())
	if err != nil || gvk == nil || *gvk != k.gvk {
		return nil, false
	}
	m, err := meta.Accessor(obj)
	return obj, err == nil && len(m.GetOwnerReferences()) == 0
}
