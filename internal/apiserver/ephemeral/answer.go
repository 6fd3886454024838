package ephemeral

import (
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metainternalversionscheme "k8s.io/apimachinery/pkg/apis/meta/internalversion/scheme"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/admission"
	auditinternal "k8s.io/apiserver/pkg/apis/audit"
	"k8s.io/apiserver/pkg/audit"
	"k8s.io/apiserver/pkg/endpoints/handlers/negotiation"
	"k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/apiserver/pkg/registry/rest"
	"k8s.io/apiserver/pkg/util/dryrun"
	"k8s.io/apiserver/pkg/warning"
)

// answer reads the object of a request and returns what becomes of it.
func (h *Handler) answer(k *kind, r *http.Request) (runtime.Object, error) {
	ctx := r.Context()
	info, _ := request.RequestInfoFrom(ctx)
	opts, err := parseOptions(r)
	if err != nil {
		return nil, err
	}
	obj, err := h.read(k, r, opts)
	if err != nil {
		return nil, err
	}
	ctx = request.WithNamespace(ctx, info.Namespace)
	if err := own(k, obj, info); err != nil {
		return nil, err
	}
	gvr := schema.GroupVersionResource{Group: info.APIGroup, Version: info.APIVersion, Resource: info.Resource}
	if wantsBody(ctx) {
		audit.LogRequestObject(ctx, obj, k.gvk.GroupVersion(), gvr, info.Subresource, h.Codecs)
	}
	caller, _ := request.UserFrom(ctx)
	attributes := admission.NewAttributesRecord(obj, nil, k.gvk, info.Namespace, info.Name, gvr, info.Subresource,
		admission.Create, opts, dryrun.IsDryRun(opts.DryRun), caller)
	admit := admission.WithAudit(h.Admission)
	interfaces := admission.NewObjectInterfacesFromScheme(h.Scheme)
	if m, ok := admit.(admission.MutationInterface); ok && m.Handles(admission.Create) {
		if err := m.Admit(ctx, attributes, interfaces); err != nil {
			return nil, err
		}
	}
	return k.create(ctx, info.Name, obj, rest.AdmissionToValidateObjectFunc(admit, attributes, interfaces), opts)
}

// wantsBody says whether the audit policy asks for bodies of this request.
func wantsBody(ctx context.Context) bool {
	c := audit.AuditContextFrom(ctx)
	return c.Enabled() && !c.GetEventLevel().Less(auditinternal.LevelRequest)
}

// own takes out what only the server sets, and refuses a namespace other than the URL's.
func own(k *kind, obj runtime.Object, info *request.RequestInfo) error {
	m, err := meta.Accessor(obj)
	if err != nil {
		return apierrors.NewInternalError(err)
	}
	if !k.keepsMeta {
		rest.WipeObjectMetaSystemFields(m)
	}
	m.SetManagedFields(nil)
	return rest.EnsureObjectNamespaceMatchesRequestNamespace(info.Namespace, m)
}

func parseOptions(r *http.Request) (*metav1.CreateOptions, error) {
	opts := &metav1.CreateOptions{}
	if r.URL.RawQuery == "" {
		return opts, nil
	}
	if err := metainternalversionscheme.ParameterCodec.DecodeParameters(r.URL.Query(), metav1.SchemeGroupVersion, opts); err != nil {
		return nil, apierrors.NewBadRequest(err.Error())
	}
	if errs := validation.ValidateCreateOptions(opts); len(errs) > 0 {
		return nil, apierrors.NewInvalid(schema.GroupKind{Group: metav1.GroupName, Kind: "CreateOptions"}, "", errs)
	}
	return opts, nil
}

// read decodes the body, with fields nobody knows ignored, warned of or refused, as the request asks.
func (h *Handler) read(k *kind, r *http.Request, opts *metav1.CreateOptions) (runtime.Object, error) {
	by, err := k.decodersFor(r, h.Codecs)
	if err != nil {
		return nil, err
	}
	body, err := readBody(r, h.MaxBodyBytes)
	if err != nil {
		return nil, err
	}
	decoder := by.strict
	if opts.FieldValidation == metav1.FieldValidationIgnore {
		decoder = by.plain
	}
	defaultKind := k.gvk
	obj, gvk, err := decoder.Decode(body, &defaultKind, k.fresh())
	if err != nil {
		if obj, err = k.forgive(r.Context(), obj, err, opts.FieldValidation); err != nil {
			return nil, err
		}
	}
	if gvk != nil && *gvk != k.gvk {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("the object in the body is a %s, a %s is wanted", gvk, k.gvk))
	}
	return obj, nil
}

// forgive turns unknown and repeated fields into warnings unless the request is strict about them. The text of any
// other decoding error may quote the body, which may hold a token, so it is not passed on.
func (k *kind) forgive(ctx context.Context, obj runtime.Object, err error, directive string) (runtime.Object, error) {
	strict, ok := runtime.AsStrictDecodingError(err)
	switch {
	case !ok:
		return nil, apierrors.NewBadRequest(fmt.Sprintf("the body cannot be read as a %s", k.gvk))
	case directive == metav1.FieldValidationStrict || obj == nil:
		return nil, apierrors.NewBadRequest(err.Error())
	}
	for _, fault := range strict.Errors() {
		warning.AddWarning(ctx, "", fault.Error())
	}
	return obj, nil
}

func (k *kind) decodersFor(r *http.Request, codecs runtime.NegotiatedSerializer) (decoders, error) {
	mediaType := r.Header.Get("Content-Type")
	if mediaType == "" {
		mediaType = runtime.ContentTypeJSON
	}
	found, ok := k.decoders[mediaType]
	if ok {
		return found, nil
	}
	if parsed, _, err := mime.ParseMediaType(mediaType); err == nil {
		if found, ok = k.decoders[parsed]; ok {
			return found, nil
		}
	}
	supported, _ := negotiation.MediaTypesForSerializer(codecs)
	return found, negotiation.NewUnsupportedMediaTypeError(supported)
}

func readBody(r *http.Request, limit int64) ([]byte, error) {
	defer func() { _ = r.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(r.Body, limit+1))
	status := apierrors.APIStatus(nil)
	switch {
	case errors.As(err, &status): // the body is larger than the server lets it be
		return nil, err
	case err != nil:
		return nil, apierrors.NewBadRequest("the body cannot be read: " + err.Error())
	case int64(len(body)) > limit:
		return nil, apierrors.NewRequestEntityTooLargeError(fmt.Sprintf("limit is %d", limit))
	}
	return body, nil
}
