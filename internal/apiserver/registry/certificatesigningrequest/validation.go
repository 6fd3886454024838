package certificatesigningrequest

import (
	"bytes"
	"slices"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"lanyard.dev/internal/pki"
)

const (
	// legacySigner took any request for any purpose; certificates.k8s.io/v1 has never allowed it.
	legacySigner = "kubernetes.io/legacy-unknown"

	minExpirationSeconds = 600
)

// usages are all that Kubernetes knows, sorted.
var usages = []certificatesv1.KeyUsage{
	certificatesv1.UsageAny, certificatesv1.UsageCertSign, certificatesv1.UsageClientAuth, certificatesv1.UsageCodeSigning,
	certificatesv1.UsageContentCommitment, certificatesv1.UsageCRLSign, certificatesv1.UsageDataEncipherment,
	certificatesv1.UsageDecipherOnly, certificatesv1.UsageDigitalSignature, certificatesv1.UsageEmailProtection,
	certificatesv1.UsageEncipherOnly, certificatesv1.UsageIPsecEndSystem, certificatesv1.UsageIPsecTunnel,
	certificatesv1.UsageIPsecUser, certificatesv1.UsageKeyAgreement, certificatesv1.UsageKeyEncipherment,
	certificatesv1.UsageMicrosoftSGC, certificatesv1.UsageNetscapeSGC, certificatesv1.UsageOCSPSigning,
	certificatesv1.UsageSMIME, certificatesv1.UsageServerAuth, certificatesv1.UsageSigning, certificatesv1.UsageTimestamping,
}

var statuses = []corev1.ConditionStatus{corev1.ConditionTrue, corev1.ConditionFalse, corev1.ConditionUnknown}

// Validate returns every fault of a new request.
func Validate(r *certificatesv1.CertificateSigningRequest) field.ErrorList {
	errs := validation.ValidateObjectMeta(&r.ObjectMeta, false, anyName, field.NewPath("metadata"))
	errs = append(errs, validateSpec(&r.Spec, field.NewPath("spec"))...)
	return append(errs, validateStatus(&r.Status, field.NewPath("status"))...)
}

// anyName leaves names to the rule that they fit into a URL path, which holds for every resource.
func anyName(string, bool) []string { return nil }

func validateSpec(s *certificatesv1.CertificateSigningRequestSpec, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	if len(s.Request) > pki.MaxRequest {
		errs = append(errs, field.TooLong(path.Child("request"), "", pki.MaxRequest))
	} else if _, err := pki.ParseRequest(s.Request); err != nil {
		errs = append(errs, field.Invalid(path.Child("request"), field.OmitValueType{}, err.Error()))
	}
	errs = append(errs, validateUsages(s.Usages, path.Child("usages"))...)
	if s.SignerName == legacySigner {
		errs = append(errs, field.Invalid(path.Child("signerName"), s.SignerName, "the legacy signerName is not allowed via this API version"))
	} else {
		errs = append(errs, ValidateSignerName(path.Child("signerName"), s.SignerName)...)
	}
	if seconds := s.ExpirationSeconds; seconds != nil && *seconds < minExpirationSeconds {
		errs = append(errs, field.Invalid(path.Child("expirationSeconds"), *seconds, "may not specify a duration less than 600 seconds (10 minutes)"))
	}
	return errs
}

func validateUsages(asked []certificatesv1.KeyUsage, path *field.Path) field.ErrorList {
	if len(asked) == 0 {
		return field.ErrorList{field.Required(path, "usages must be provided")}
	}
	var errs field.ErrorList
	for i, usage := range asked {
		if !slices.Contains(usages, usage) {
			errs = append(errs, field.NotSupported(path.Index(i), usage, usages))
		}
		if slices.Contains(asked[:i], usage) {
			errs = append(errs, field.Duplicate(path.Index(i), usage))
		}
	}
	return errs
}

func validateStatus(s *certificatesv1.CertificateSigningRequestStatus, path *field.Path) field.ErrorList {
	errs := validateConditions(s.Conditions, path.Child("conditions"))
	if len(s.Certificate) == 0 {
		return errs
	}
	if err := pki.CheckChain(s.Certificate); err != nil {
		errs = append(errs, field.Invalid(path.Child("certificate"), field.OmitValueType{}, err.Error()))
	}
	return errs
}

func validateConditions(all []entry, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	for i, c := range all {
		at := path.Index(i)
		errs = append(errs, validateConditionStatus(c, at)...)
		if len(ofType(all[:i], c.Type)) > 0 {
			errs = append(errs, field.Duplicate(at.Child("type"), c.Type))
		}
		if other := opposite(c.Type); other != "" && len(ofType(all[:i], other)) > 0 {
			errs = append(errs, field.Invalid(at.Child("type"), c.Type, "Approved and Denied conditions are mutually exclusive"))
		}
	}
	return errs
}

func validateConditionStatus(c entry, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	if c.Type == "" {
		errs = append(errs, field.Required(path.Child("type"), ""))
	}
	switch {
	case c.Status == "":
		errs = append(errs, field.Required(path.Child("status"), ""))
	case slices.Contains(decisions, c.Type) && c.Status != corev1.ConditionTrue:
		errs = append(errs, field.NotSupported(path.Child("status"), c.Status, statuses[:1]))
	case !slices.Contains(statuses, c.Status):
		errs = append(errs, field.NotSupported(path.Child("status"), c.Status, statuses))
	}
	return errs
}

func opposite(kind certificatesv1.RequestConditionType) certificatesv1.RequestConditionType {
	switch kind {
	case certificatesv1.CertificateApproved:
		return certificatesv1.CertificateDenied
	case certificatesv1.CertificateDenied:
		return certificatesv1.CertificateApproved
	}
	return ""
}

// approvals are for /approval to set, decisions are all that is never taken back.
var (
	approvals = []certificatesv1.RequestConditionType{certificatesv1.CertificateApproved, certificatesv1.CertificateDenied}
	decisions = append(slices.Clone(approvals), certificatesv1.CertificateFailed)
)

// ValidateUpdate returns every fault of a change of metadata, or of either subresource: each strategy has put back what
// is not its to change.
func ValidateUpdate(updated, old *certificatesv1.CertificateSigningRequest) field.ErrorList {
	errs := validation.ValidateObjectMetaUpdate(&updated.ObjectMeta, &old.ObjectMeta, field.NewPath("metadata"))
	path := field.NewPath("status")
	for _, kind := range decisions {
		if len(ofType(updated.Status.Conditions, kind)) < len(ofType(old.Status.Conditions, kind)) {
			errs = append(errs, field.Forbidden(path.Child("conditions"), "updates may not remove a condition of type \""+string(kind)+"\""))
		}
	}
	if len(old.Status.Certificate) > 0 && !bytes.Equal(updated.Status.Certificate, old.Status.Certificate) {
		errs = append(errs, field.Forbidden(path.Child("certificate"), "updates may not modify existing certificate content"))
	}
	return append(errs, validateStatus(&updated.Status, path)...)
}
