package certificatesigningrequest

import (
	"bytes"
	"fmt"
	"slices"
	"strings"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	utilvalidation "k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"lanyard.dev/internal/pki"
)

const (
	// legacySigner accepted any request for any purpose. certificates.k8s.io/v1 has never allowed it.
	legacySigner = "kubernetes.io/legacy-unknown"

	minExpirationSeconds = 600
)

// usages are all key usages that Kubernetes knows, sorted.
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

// Validate returns the faults of a new request.
func Validate(r *certificatesv1.CertificateSigningRequest) field.ErrorList {
	errs := validation.ValidateObjectMeta(&r.ObjectMeta, false, anyName, field.NewPath("metadata"))
	errs = append(errs, validateSpec(&r.Spec, field.NewPath("spec"))...)
	return append(errs, validateStatus(&r.Status, field.NewPath("status"))...)
}

// anyName accepts every name. All resources require that a name is valid in the path of a URL.
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

func validateUsages(requested []certificatesv1.KeyUsage, path *field.Path) field.ErrorList {
	if len(requested) == 0 {
		return field.ErrorList{field.Required(path, "usages must be provided")}
	}
	var errs field.ErrorList
	for i, usage := range requested {
		if !slices.Contains(usages, usage) {
			errs = append(errs, field.NotSupported(path.Index(i), usage, usages))
		}
		if slices.Contains(requested[:i], usage) {
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
	if _, err := pki.ParseChain(s.Certificate); err != nil {
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

// approvals are the conditions that /approval sets, and decisions are those that are never removed.
var (
	approvals = []certificatesv1.RequestConditionType{certificatesv1.CertificateApproved, certificatesv1.CertificateDenied}
	decisions = append(slices.Clone(approvals), certificatesv1.CertificateFailed)
)

// ValidateUpdate returns the faults of an update of the metadata or of a subresource. The strategy has restored all fields
// that the update must not change.
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

// entry is one condition.
type entry = certificatesv1.CertificateSigningRequestCondition

// ofType returns the conditions of one type, in order.
func ofType(all []entry, kind certificatesv1.RequestConditionType) []entry {
	var found []entry
	for _, c := range all {
		if c.Type == kind {
			found = append(found, c)
		}
	}
	return found
}

// keepStored returns now with its conditions of the given types replaced by the stored ones. It keeps the order where that
// is possible, so that an update without changes has no effect.
func keepStored(now, stored []entry, kinds ...certificatesv1.RequestConditionType) []entry {
	kept := make([]entry, 0, len(now))
	left := slices.Clone(stored)
	for _, c := range now {
		if !slices.Contains(kinds, c.Type) {
			kept = append(kept, c)
			continue
		}
		if at := slices.IndexFunc(left, func(s entry) bool { return s.Type == c.Type }); at >= 0 {
			kept = append(kept, left[at])
			left = slices.Delete(left, at, at+1)
		}
	}
	for _, s := range left {
		if slices.Contains(kinds, s.Type) {
			kept = append(kept, s)
		}
	}
	return kept
}

// stamp sets the times that a client left out: the time of the last update, and the time of the last change of the status.
func stamp(now, stored []entry, at metav1.Time) {
	for i := range now {
		c := &now[i]
		if c.LastUpdateTime.IsZero() {
			c.LastUpdateTime = at
		}
		if !c.LastTransitionTime.IsZero() {
			continue
		}
		c.LastTransitionTime = at
		for _, s := range ofType(stored, c.Type) {
			if s.Status == c.Status && !s.LastTransitionTime.IsZero() {
				c.LastTransitionTime = s.LastTransitionTime
			}
		}
	}
}

const (
	maxSignerDomain = utilvalidation.DNS1123SubdomainMaxLength
	maxSignerName   = maxSignerDomain + 1 + utilvalidation.DNS1123SubdomainMaxLength + utilvalidation.DNS1123LabelMaxLength + 1
)

// ValidateSignerName returns the faults of the name of a signer: a domain of at least two labels, a slash, and one or more
// subdomain names joined by dots.
func ValidateSignerName(path *field.Path, name string) field.ErrorList {
	if name == "" {
		return field.ErrorList{field.Required(path, "")}
	}
	domain, rest, ok := strings.Cut(name, "/")
	if !ok || strings.Contains(rest, "/") {
		return field.ErrorList{field.Invalid(path, name, "must be a fully qualified domain and path of the form 'example.com/signer-name'")}
	}
	var errs field.ErrorList
	if len(domain) > maxSignerDomain {
		errs = append(errs, field.TooLong(path, domain, maxSignerDomain))
	}
	errs = append(errs, validateLabels(path, domain, utilvalidation.IsDNS1123Label)...)
	if !strings.Contains(domain, ".") {
		errs = append(errs, field.Invalid(path, domain, "should be a domain with at least two segments separated by dots"))
	}
	errs = append(errs, validateLabels(path, rest, utilvalidation.IsDNS1123Subdomain)...)
	if len(name) > maxSignerName {
		errs = append(errs, field.TooLong(path, name, maxSignerName))
	}
	return errs
}

// validateLabels returns the faults of the first invalid label. The others would have the same faults.
func validateLabels(path *field.Path, segment string, faults func(string) []string) field.ErrorList {
	for label := range strings.SplitSeq(segment, ".") {
		var errs field.ErrorList
		for _, msg := range faults(label) {
			errs = append(errs, field.Invalid(path, segment, fmt.Sprintf("validating label %q: %s", label, msg)))
		}
		if len(errs) > 0 {
			return errs
		}
	}
	return nil
}
