package node

import (
	"fmt"
	"strings"

	utilvalidation "k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

const (
	featureOrder = "list must be sorted alphabetically"
	featureLong  = "invalid feature name %q: must be no more than %d characters"
	featureForm  = "invalid feature name %q: must start with an UpperCamelCase segment, with subsequent segments separated by '/' (e.g., MyFeature or MyFeature/mySubFeature), and contain only alphanumeric characters and slashes"
)

// validateFeatures holds the list of declared features sorted, so that a scheduler can search it.
func validateFeatures(features []string, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	for i, feature := range features {
		if msg := featureFault(feature); msg != "" {
			errs = append(errs, field.Invalid(path.Index(i), feature, msg))
		}
		if i == 0 {
			continue
		}
		switch strings.Compare(features[i-1], feature) {
		case 0:
			errs = append(errs, field.Duplicate(path.Index(i), feature))
		case 1:
			errs = append(errs, field.Invalid(path.Index(i), feature, featureOrder))
		}
	}
	return errs
}

func featureFault(name string) string {
	if len(name) > utilvalidation.DNS1123SubdomainMaxLength {
		return fmt.Sprintf(featureLong, name, utilvalidation.DNS1123SubdomainMaxLength)
	}
	if name == "" || !isUpper(name[0]) {
		return fmt.Sprintf(featureForm, name)
	}
	for segment := range strings.SplitSeq(name, "/") {
		if !isWord(segment) {
			return fmt.Sprintf(featureForm, name)
		}
	}
	return ""
}

// isWord reports whether s is a letter followed by letters and digits, all of ASCII.
func isWord(s string) bool {
	for i := range len(s) {
		letter := isUpper(s[i]) || 'a' <= s[i] && s[i] <= 'z'
		digit := '0' <= s[i] && s[i] <= '9'
		if !letter && (i == 0 || !digit) {
			return false
		}
	}
	return s != ""
}

func isUpper(c byte) bool { return 'A' <= c && c <= 'Z' }
