package certificatesigningrequest

import (
	"fmt"
	"strings"

	utilvalidation "k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

const (
	maxSignerDomain = utilvalidation.DNS1123SubdomainMaxLength
	maxSignerName   = maxSignerDomain + 1 + utilvalidation.DNS1123SubdomainMaxLength + utilvalidation.DNS1123LabelMaxLength + 1
)

// ValidateSignerName returns what is wrong with the name of a signer: a domain of two labels at least, a slash, and one
// or more subdomain names joined by dots.
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

// validateLabels reports the first label that is at fault; the others would say the same.
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
