// Package certificatesigningrequest serves certificate signing requests: it validates them, records their requester, prints
// them, and serves /approval and /status.
//
// The package does not know who may approve or sign a request, and signs nothing.
package certificatesigningrequest

import (
	"context"
	"slices"
	"strings"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/util/duration"
	"k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/utils/clock"
	"sigs.k8s.io/structured-merge-diff/v6/fieldpath"

	"lanyard.dev/internal/apiserver/registry"
)

// Signed reports whether this server signs the requests to a signer.
type Signed func(signerName string) bool

type strategy = registry.Strategy[*certificatesv1.CertificateSigningRequest]

// Strategy returns how requests are created and updated. Warner returns its function for warnings.
func Strategy() registry.Strategy[*certificatesv1.CertificateSigningRequest] {
	return strategy{
		OnCreate: prepare, OnUpdate: keepAll, Check: Validate, CheckUpdate: ValidateUpdate,
		Reset: reset("status", "spec.uid", "spec.username", "spec.groups", "spec.extra"),
	}
}

// NewApproval returns the subresource approval on the store of requests.
func NewApproval(store *registry.Store, c clock.PassiveClock) *registry.Subresource {
	approval := registry.StrategyOf[*certificatesv1.CertificateSigningRequest](store)
	approval.OnUpdate = func(_ context.Context, obj, old *certificatesv1.CertificateSigningRequest) {
		keepForApproval(obj, old, metav1.NewTime(c.Now()))
	}
	approval.Reset = reset("spec", "status.certificate")
	return registry.NewSubresource(store, approval)
}

// NewStatus returns the subresource status on the store of requests.
func NewStatus(store *registry.Store, c clock.PassiveClock) *registry.Subresource {
	status := registry.StrategyOf[*certificatesv1.CertificateSigningRequest](store)
	status.OnUpdate = func(_ context.Context, obj, old *certificatesv1.CertificateSigningRequest) {
		keepForStatus(obj, old, metav1.NewTime(c.Now()))
	}
	status.Reset, status.Warn = reset("spec"), nil
	return registry.NewSubresource(store, status)
}

// prepare records the caller as the requester, whatever the body contains, and removes every decision.
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

// keepAll allows changes of metadata only: the approver must be able to rely on the request.
func keepAll(_ context.Context, obj, old *certificatesv1.CertificateSigningRequest) {
	obj.Spec, obj.Status = old.Spec, old.Status
}

// keepForApproval allows changes of the conditions, except for those that the signer sets.
func keepForApproval(obj, old *certificatesv1.CertificateSigningRequest, now metav1.Time) {
	conditions := keepStored(obj.Status.Conditions, old.Status.Conditions, certificatesv1.CertificateFailed)
	obj.Spec, obj.Status = old.Spec, old.Status
	obj.Status.Conditions = conditions
	stamp(obj.Status.Conditions, old.Status.Conditions, now)
}

// keepForStatus allows changes of the certificate and of the conditions, except for the conditions of the approval.
func keepForStatus(obj, old *certificatesv1.CertificateSigningRequest, now metav1.Time) {
	obj.Spec = old.Spec
	obj.Status.Conditions = keepStored(obj.Status.Conditions, old.Status.Conditions, approvals...)
	stamp(obj.Status.Conditions, old.Status.Conditions, now)
}

// Warner returns the warnings about requests that will not be signed: those to a signer of Kubernetes' own for which this
// server does not sign.
func Warner(signed Signed) func(context.Context, *certificatesv1.CertificateSigningRequest) []string {
	return func(_ context.Context, r *certificatesv1.CertificateSigningRequest) []string {
		name := r.Spec.SignerName
		if !strings.HasPrefix(name, "kubernetes.io/") || signed(name) || len(r.Status.Certificate) > 0 || has(r, certificatesv1.CertificateDenied) {
			return nil
		}
		return []string{"this server does not sign for " + name + ": the request remains unsigned unless another signer signs it" + configure(name)}
	}
}

func configure(signerName string) string {
	own := []string{certificatesv1.KubeAPIServerClientSignerName, certificatesv1.KubeAPIServerClientKubeletSignerName}
	if slices.Contains(own, signerName) {
		return " (it has no signing CA: --cluster-signing-cert-file)"
	}
	return ""
}

// reset returns the set of fields with the given paths, whose elements are separated by dots.
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

// Fields returns the fields that a field selector may name, with the values of r.
func Fields(r *certificatesv1.CertificateSigningRequest) fields.Set {
	return fields.Set{"metadata.name": r.Name, "spec.signerName": r.Spec.SignerName}
}

// Columns are the columns of kubectl get csr.
var Columns = []metav1.TableColumnDefinition{
	{Name: "Name", Type: "string", Format: "name", Description: "Name of the request."},
	{Name: "Age", Type: "string", Description: "Time since the request was created."},
	{Name: "SignerName", Type: "string", Description: "Name of the signer."},
	{Name: "Requestor", Type: "string", Description: "User who created the request."},
	{Name: "RequestedDuration", Type: "string", Description: "How long the certificate is to be valid."},
	{Name: "Condition", Type: "string", Description: "Whether the request was approved, denied or signed."},
}

// Row returns a cell for each of Columns, with the age at the time now.
func Row(r *certificatesv1.CertificateSigningRequest, now time.Time) []any {
	requested := "<none>"
	if seconds := r.Spec.ExpirationSeconds; seconds != nil {
		requested = duration.HumanDuration(time.Duration(*seconds) * time.Second)
	}
	return []any{r.Name, registry.Age(r.CreationTimestamp.Time, now), r.Spec.SignerName, r.Spec.Username, requested, condition(r)}
}

func condition(r *certificatesv1.CertificateSigningRequest) string {
	state := "Pending"
	switch {
	case has(r, certificatesv1.CertificateDenied):
		state = "Denied"
	case has(r, certificatesv1.CertificateApproved):
		state = "Approved"
	}
	if has(r, certificatesv1.CertificateFailed) {
		state += ",Failed"
	}
	if len(r.Status.Certificate) > 0 {
		state += ",Issued"
	}
	return state
}

func has(r *certificatesv1.CertificateSigningRequest, kind certificatesv1.RequestConditionType) bool {
	return len(ofType(r.Status.Conditions, kind)) > 0
}
