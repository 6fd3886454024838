package objects

import (
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// ValidateClusterRole returns every fault of a new cluster role.
func ValidateClusterRole(r *rbacv1.ClusterRole) field.ErrorList {
	return validateClusterRole(r, validation.LabelSelectorValidationOptions{})
}

// ValidateClusterRoleUpdate returns every fault of updated and of its change from old. A label value in an aggregation selector
// that is malformed in old already may stay so.
func ValidateClusterRoleUpdate(updated, old *rbacv1.ClusterRole) field.ErrorList {
	options := validation.LabelSelectorValidationOptions{AllowInvalidLabelValueInSelector: hasInvalidLabelValue(old.AggregationRule)}
	return append(validateClusterRole(updated, options), validateMetaUpdate(&updated.ObjectMeta, &old.ObjectMeta)...)
}

func validateClusterRole(r *rbacv1.ClusterRole, options validation.LabelSelectorValidationOptions) field.ErrorList {
	errs := validateMeta(&r.ObjectMeta, cluster)
	errs = append(errs, validateRules(r.Rules, cluster)...)
	if r.AggregationRule == nil {
		return errs
	}
	path := field.NewPath("aggregationRule", "clusterRoleSelectors")
	return append(errs, validateSelectors(r.AggregationRule.ClusterRoleSelectors, options, path)...)
}

func validateSelectors(selectors []metav1.LabelSelector, options validation.LabelSelectorValidationOptions, path *field.Path) field.ErrorList {
	if len(selectors) == 0 {
		return field.ErrorList{field.Required(path, "at least one clusterRoleSelector required if aggregationRule is non-nil")}
	}
	var errs field.ErrorList
	for i := range selectors {
		errs = append(errs, validation.ValidateLabelSelector(&selectors[i], options, path.Index(i))...)
		if _, err := metav1.LabelSelectorAsSelector(&selectors[i]); err != nil {
			errs = append(errs, field.Invalid(path.Index(i), selectors[i], "invalid label selector."))
		}
	}
	return errs
}

func hasInvalidLabelValue(rule *rbacv1.AggregationRule) bool {
	if rule == nil {
		return false
	}
	for i := range rule.ClusterRoleSelectors {
		if validation.LabelSelectorHasInvalidLabelValue(&rule.ClusterRoleSelectors[i]) {
			return true
		}
	}
	return false
}
