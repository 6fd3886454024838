package certificatesigningrequest

import (
	"context"
	"slices"
	"strings"

	certificatesv1 "k8s.io/api/certificates/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/apiserver/pkg/registry/generic"
	"k8s.io/apiserver/pkg/storage/names"
	"k8s.io/utils/clock"
	"sigs.k8s.io/structured-merge-diff/v6/fieldpath"

	"lanyard.dev/internal/apiserver/registry"
)

// Resource is the resource that this package serves.
var Resource = schema.GroupResource{Group: certificatesv1.GroupName, Resource: "certificatesigningrequests"}

// Storage is the requests with their subresources.
type Storage struct {
	Request          *registry.Store
	Approval, Status *registry.Part
}

// Signed tells whether requests to a signer are signed by this server.
type Signed func(signerName string) bool

type strategy = registry.Strategy[*certificatesv1.CertificateSigningRequest]

// NewStorage returns the store of requests and of their subresources. A caller who asks a signer of Kubernetes' own that
// signed does not know of is warned.
func NewStorage(typer runtime.ObjectTyper, getter generic.RESTOptionsGetter, signed Signed, c clock.PassiveClock) (*Storage, error) {
	s := strategy{
		ObjectTyper: typer, NameGenerator: names.SimpleNameGenerator,
		OnCreate: prepare, OnUpdate: keepAll, Check: Validate, CheckUpdate: ValidateUpdate, Warn: warner(signed),
		Reset: reset("status", "spec.uid", "spec.username", "spec.groups", "spec.extra"),
	}
	store, err := registry.NewStore(registry.Kind[*certificatesv1.CertificateSigningRequest]{
		Resource: Resource, Singular: "certificatesigningrequest", ShortNames: []string{"csr"},
		New:      func() *certificatesv1.CertificateSigningRequest { return &certificatesv1.CertificateSigningRequest{} },
		NewList:  func() runtime.Object { return &certificatesv1.CertificateSigningRequestList{} },
		Strategy: s, Columns: Columns, Row: Row, Fields: Fields,
	}, getter)
	if err != nil {
		return nil, err
	}
	approval, status := s, s
	approval.OnUpdate = func(_ context.Context, obj, old *certificatesv1.CertificateSigningRequest) {
		keepForApproval(obj, old, metav1.NewTime(c.Now()))
	}
	approval.Reset = reset("spec", "status.certificate")
	status.OnUpdate = func(_ context.Context, obj, old *certificatesv1.CertificateSigningRequest) {
		keepForStatus(obj, old, metav1.NewTime(c.Now()))
	}
	status.Reset, status.Warn = reset("spec"), nil
	return &Storage{Request: store, Approval: registry.NewPart(store, approval), Status: registry.NewPart(store, status)}, nil
}

// prepare writes down who asks, whatever the body says, and that nothing has been decided.
func prepare(ctx context.Context, r *certificatesv1.CertificateSigningRequest) {
	r.Spec.Username, r.Spec.UID, r.Spec.Groups, r.Spec.Extra = "", "", nil, nil
	r.Status = certificatesv1.CertificateSigningRequestStatus{}
	who, ok := request.UserFrom(ctx)
	if !ok {
		return
	}
	r.Spec.Username, r.Spec.UID, r.Spec.Groups = who.GetName(), who.GetUID(), who.GetGroups()
	for key, values := range who.GetExtra() {
		if r.Spec.Extra == nil {
			r.Spec.Extra = map[string]certificatesv1.ExtraValue{}
		}
		r.Spec.Extra[key] = values
	}
}

// keepAll leaves nothing but metadata to change: a request is what its approver saw.
func keepAll(_ context.Context, obj, old *certificatesv1.CertificateSigningRequest) {
	obj.Spec, obj.Status = old.Spec, old.Status
}

// keepForApproval leaves the conditions to change, but for the signer's own.
func keepForApproval(obj, old *certificatesv1.CertificateSigningRequest, now metav1.Time) {
	conditions := keepStored(obj.Status.Conditions, old.Status.Conditions, certificatesv1.CertificateFailed)
	obj.Spec, obj.Status = old.Spec, old.Status
	obj.Status.Conditions = conditions
	stamp(obj.Status.Conditions, old.Status.Conditions, now)
}

// keepForStatus leaves the certificate and the conditions to change, but for those of approval.
func keepForStatus(obj, old *certificatesv1.CertificateSigningRequest, now metav1.Time) {
	obj.Spec = old.Spec
	obj.Status.Conditions = keepStored(obj.Status.Conditions, old.Status.Conditions, approvals...)
	stamp(obj.Status.Conditions, old.Status.Conditions, now)
}

// warner warns of requests that wait in vain, until they are signed.
func warner(signed Signed) func(context.Context, *certificatesv1.CertificateSigningRequest) []string {
	return func(_ context.Context, r *certificatesv1.CertificateSigningRequest) []string {
		name := r.Spec.SignerName
		if !strings.HasPrefix(name, "kubernetes.io/") || signed(name) || len(r.Status.Certificate) > 0 || has(r, certificatesv1.CertificateDenied) {
			return nil
		}
		return []string{"this server does not sign for " + name + ": the request stays unsigned unless another signer takes it" + configure(name)}
	}
}

func configure(signerName string) string {
	own := []string{certificatesv1.KubeAPIServerClientSignerName, certificatesv1.KubeAPIServerClientKubeletSignerName}
	if slices.Contains(own, signerName) {
		return " (it has no signing CA: --cluster-signing-cert-file)"
	}
	return ""
}

// reset names fields as paths with dots.
func reset(paths ...string) map[fieldpath.APIVersion]*fieldpath.Set {
	set := fieldpath.NewSet()
	for _, path := range paths {
		var parts []any
		for part := range strings.SplitSeq(path, ".") {
			parts = append(parts, part)
		}
		set.Insert(fieldpath.MakePathOrDie(parts...))
	}
	return map[fieldpath.APIVersion]*fieldpath.Set{fieldpath.APIVersion(certificatesv1.SchemeGroupVersion.String()): set}
}
