package ephemeral

import (
	"net/http"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/admission"
	auditinternal "k8s.io/apiserver/pkg/apis/audit"
	"k8s.io/apiserver/pkg/audit"
	"k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/apiserver/pkg/registry/rest"
	"k8s.io/apiserver/pkg/util/dryrun"
)

// answer admits the object of a request and returns what its storage makes of it.
func (h *Handler) answer(k *kind, q question, r *http.Request) (runtime.Object, error) {
	info, _ := request.RequestInfoFrom(r.Context())
	ctx := request.WithNamespace(r.Context(), info.Namespace)
	gvr := schema.GroupVersionResource{Group: info.APIGroup, Version: info.APIVersion, Resource: info.Resource}
	m, err := meta.Accessor(q.obj)
	if err != nil {
		return nil, err
	}
	if c := audit.AuditContextFrom(ctx); c.Enabled() && (wantsBody(c) || identifies(m, info)) {
		audit.LogRequestObject(ctx, q.obj, k.gvk.GroupVersion(), gvr, info.Subresource, h.Codecs)
	}
	if !k.keepsMeta {
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
	attributes := admission.NewAttributesRecord(q.obj, nil, k.gvk, info.Namespace, name, gvr, info.Subresource,
		admission.Create, q.options, dryrun.IsDryRun(q.options.DryRun), caller)
	admit := admission.WithAudit(h.Admission)
	interfaces := admission.NewObjectInterfacesFromScheme(h.Scheme)
	if mutating, ok := admit.(admission.MutationInterface); ok && mutating.Handles(admission.Create) {
		if err := mutating.Admit(ctx, attributes, interfaces); err != nil {
			return nil, err
		}
	}
	return k.create(ctx, info.Name, q.obj, rest.AdmissionToValidateObjectFunc(admit, attributes, interfaces), q.options)
}

// wantsBody tells whether the audit policy asks for bodies of this request.
func wantsBody(c *audit.AuditContext) bool {
	return !c.GetEventLevel().Less(auditinternal.LevelRequest)
}

// identifies tells whether metadata names an object more exactly than the path does. The audit event then holds that as
// well, whatever its level.
func identifies(m metav1.Object, path *request.RequestInfo) bool {
	return m.GetUID() != "" || m.GetResourceVersion() != "" || path.Name == "" && m.GetName() != "" || path.Namespace == "" && m.GetNamespace() != ""
}
