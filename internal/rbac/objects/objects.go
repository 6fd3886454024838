// Package objects validates the four RBAC kinds and fills in their defaults, as an API server does before it stores them,
// and computes the rules of aggregated ClusterRoles.
//
// It does not know how a request is decided, whether a writer may grant what an object grants, or where roles are kept.
package objects

import (
	"slices"

	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/validate/content"
	"k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// scope is where a role or binding applies: in its namespace, or everywhere.
type scope bool

const (
	cluster    scope = false
	namespaced scope = true
)

// maxSize is the limit for the rules of a role and for the subjects of a binding, in bytes as stored. etcd takes 1.5 MiB at
// once by default. The rest is for metadata, so that an object that is too large is refused here, with the field path, and
// not by etcd.
const maxSize = 1<<20 + 3<<17

// validateMeta returns the faults of the metadata of a role or binding. A name is valid if it fits into a URL path:
// "system:node" and "Admins" are valid.
func validateMeta(meta *metav1.ObjectMeta, in scope) field.ErrorList {
	return validation.ValidateObjectMeta(meta, bool(in), isName, field.NewPath("metadata"))
}

func validateMetaUpdate(updated, old *metav1.ObjectMeta) field.ErrorList {
	return validation.ValidateObjectMetaUpdate(updated, old, field.NewPath("metadata"))
}

func isName(name string, _ bool) []string { return content.IsPathSegmentName(name) }

func validateRules(rules []rbacv1.PolicyRule, in scope) field.ErrorList {
	path := field.NewPath("rules")
	errs := validateSize((&rbacv1.ClusterRole{Rules: rules}).Size(), path)
	for i := range rules {
		errs = append(errs, validateRule(&rules[i], in, path.Index(i))...)
	}
	return errs
}

func validateSize(size int, path *field.Path) field.ErrorList {
	if size <= maxSize {
		return nil
	}
	return field.ErrorList{field.TooLong(path, "", maxSize)}
}

func validateRule(rule *rbacv1.PolicyRule, in scope, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	if len(rule.Verbs) == 0 {
		errs = append(errs, field.Required(path.Child("verbs"), "verbs must contain at least one value"))
	}
	if len(rule.NonResourceURLs) > 0 {
		return append(errs, validateURLRule(rule, in, path.Child("nonResourceURLs"))...)
	}
	if len(rule.APIGroups) == 0 {
		errs = append(errs, field.Required(path.Child("apiGroups"), "resource rules must supply at least one api group"))
	}
	if len(rule.Resources) == 0 {
		errs = append(errs, field.Required(path.Child("resources"), "resource rules must supply at least one resource"))
	}
	return errs
}

func validateURLRule(rule *rbacv1.PolicyRule, in scope, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	if in == namespaced {
		errs = append(errs, field.Invalid(path, rule.NonResourceURLs, "namespaced rules cannot apply to non-resource URLs"))
	}
	if len(rule.APIGroups)+len(rule.Resources)+len(rule.ResourceNames) > 0 {
		errs = append(errs, field.Invalid(path, rule.NonResourceURLs, "rules cannot apply to both regular resources and non-resource URLs"))
	}
	return errs
}

// validateRoleRef returns the faults of the role reference of a binding. kinds are the kinds that it may name.
func validateRoleRef(ref rbacv1.RoleRef, kinds ...string) field.ErrorList {
	var errs field.ErrorList
	path := field.NewPath("roleRef")
	if ref.APIGroup != rbacv1.GroupName {
		errs = append(errs, field.NotSupported(path.Child("apiGroup"), ref.APIGroup, []string{rbacv1.GroupName}))
	}
	if !slices.Contains(kinds, ref.Kind) {
		errs = append(errs, field.NotSupported(path.Child("kind"), ref.Kind, kinds))
	}
	if ref.Name == "" {
		return append(errs, field.Required(path.Child("name"), ""))
	}
	return append(errs, invalid(path.Child("name"), ref.Name, content.IsPathSegmentName(ref.Name))...)
}

// ValidateRoleRefUpdate returns a fault if a binding names another role than before. Otherwise a user who may edit the
// subjects of a binding could get the permissions of any role by it.
func ValidateRoleRefUpdate(updated, old rbacv1.RoleRef) field.ErrorList {
	if updated == old {
		return nil
	}
	return field.ErrorList{field.Invalid(field.NewPath("roleRef"), updated, "cannot change roleRef")}
}

// validateSubjects returns the faults of the subjects of a binding. A RoleBinding may leave out the namespace of a service
// account.
func validateSubjects(subjects []rbacv1.Subject, in scope) field.ErrorList {
	path := field.NewPath("subjects")
	errs := validateSize((&rbacv1.RoleBinding{Subjects: subjects}).Size(), path)
	for i := range subjects {
		errs = append(errs, validateSubject(&subjects[i], in, path.Index(i))...)
	}
	return errs
}

func validateSubject(s *rbacv1.Subject, in scope, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	if s.Name == "" {
		errs = append(errs, field.Required(path.Child("name"), ""))
	}
	switch s.Kind {
	case rbacv1.ServiceAccountKind:
		return append(errs, validateAccount(s, in, path)...)
	case rbacv1.UserKind, rbacv1.GroupKind:
		if s.APIGroup != rbacv1.GroupName {
			errs = append(errs, field.NotSupported(path.Child("apiGroup"), s.APIGroup, []string{rbacv1.GroupName}))
		}
	default:
		kinds := []string{rbacv1.ServiceAccountKind, rbacv1.UserKind, rbacv1.GroupKind}
		errs = append(errs, field.NotSupported(path.Child("kind"), s.Kind, kinds))
	}
	return errs
}

func validateAccount(s *rbacv1.Subject, in scope, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	if s.Name != "" {
		errs = invalid(path.Child("name"), s.Name, validation.ValidateServiceAccountName(s.Name, false))
	}
	if s.APIGroup != "" {
		errs = append(errs, field.NotSupported(path.Child("apiGroup"), s.APIGroup, []string{""}))
	}
	if in == cluster && s.Namespace == "" {
		errs = append(errs, field.Required(path.Child("namespace"), ""))
	}
	return errs
}

func invalid(path *field.Path, value string, messages []string) field.ErrorList {
	var errs field.ErrorList
	for _, msg := range messages {
		errs = append(errs, field.Invalid(path, value, msg))
	}
	return errs
}

// ValidateRole returns every fault of a new role.
func ValidateRole(r *rbacv1.Role) field.ErrorList {
	errs := validateMeta(&r.ObjectMeta, namespaced)
	return append(errs, validateRules(r.Rules, namespaced)...)
}

// ValidateRoleUpdate returns every fault of updated and of its change from old.
func ValidateRoleUpdate(updated, old *rbacv1.Role) field.ErrorList {
	return append(ValidateRole(updated), validateMetaUpdate(&updated.ObjectMeta, &old.ObjectMeta)...)
}

// ValidateClusterRole returns every fault of a new cluster role.
func ValidateClusterRole(r *rbacv1.ClusterRole) field.ErrorList {
	return validateClusterRole(r, metav1validation.LabelSelectorValidationOptions{})
}

// ValidateClusterRoleUpdate returns every fault of updated and of its change from old. An aggregation selector may keep a
// label value that is malformed in old.
func ValidateClusterRoleUpdate(updated, old *rbacv1.ClusterRole) field.ErrorList {
	options := metav1validation.LabelSelectorValidationOptions{AllowInvalidLabelValueInSelector: hasInvalidLabelValue(old.AggregationRule)}
	return append(validateClusterRole(updated, options), validateMetaUpdate(&updated.ObjectMeta, &old.ObjectMeta)...)
}

func validateClusterRole(r *rbacv1.ClusterRole, options metav1validation.LabelSelectorValidationOptions) field.ErrorList {
	errs := validateMeta(&r.ObjectMeta, cluster)
	errs = append(errs, validateRules(r.Rules, cluster)...)
	if r.AggregationRule == nil {
		return errs
	}
	path := field.NewPath("aggregationRule", "clusterRoleSelectors")
	return append(errs, validateSelectors(r.AggregationRule.ClusterRoleSelectors, options, path)...)
}

func validateSelectors(selectors []metav1.LabelSelector, options metav1validation.LabelSelectorValidationOptions, path *field.Path) field.ErrorList {
	if len(selectors) == 0 {
		return field.ErrorList{field.Required(path, "at least one clusterRoleSelector required if aggregationRule is non-nil")}
	}
	var errs field.ErrorList
	for i := range selectors {
		errs = append(errs, metav1validation.ValidateLabelSelector(&selectors[i], options, path.Index(i))...)
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
		if metav1validation.LabelSelectorHasInvalidLabelValue(&rule.ClusterRoleSelectors[i]) {
			return true
		}
	}
	return false
}

// ValidateRoleBinding returns every fault of a new role binding. The role that it names may be missing.
func ValidateRoleBinding(b *rbacv1.RoleBinding) field.ErrorList {
	errs := validateMeta(&b.ObjectMeta, namespaced)
	errs = append(errs, validateRoleRef(b.RoleRef, "Role", "ClusterRole")...)
	return append(errs, validateSubjects(b.Subjects, namespaced)...)
}

// ValidateRoleBindingUpdate returns every fault of updated and of its change from old.
func ValidateRoleBindingUpdate(updated, old *rbacv1.RoleBinding) field.ErrorList {
	errs := append(ValidateRoleBinding(updated), validateMetaUpdate(&updated.ObjectMeta, &old.ObjectMeta)...)
	return append(errs, ValidateRoleRefUpdate(updated.RoleRef, old.RoleRef)...)
}

// ValidateClusterRoleBinding returns every fault of a new cluster role binding. The role that it names may be missing.
func ValidateClusterRoleBinding(b *rbacv1.ClusterRoleBinding) field.ErrorList {
	errs := validateMeta(&b.ObjectMeta, cluster)
	errs = append(errs, validateRoleRef(b.RoleRef, "ClusterRole")...)
	return append(errs, validateSubjects(b.Subjects, cluster)...)
}

// ValidateClusterRoleBindingUpdate returns every fault of updated and of its change from old.
func ValidateClusterRoleBindingUpdate(updated, old *rbacv1.ClusterRoleBinding) field.ErrorList {
	errs := append(ValidateClusterRoleBinding(updated), validateMetaUpdate(&updated.ObjectMeta, &old.ObjectMeta)...)
	return append(errs, ValidateRoleRefUpdate(updated.RoleRef, old.RoleRef)...)
}

// SetRoleBindingDefaults fills in the API groups of the role and of users and groups. It is idempotent.
func SetRoleBindingDefaults(b *rbacv1.RoleBinding) { setBindingDefaults(&b.RoleRef, b.Subjects) }

// SetClusterRoleBindingDefaults fills in the API groups of the role and of users and groups. It is idempotent.
func SetClusterRoleBindingDefaults(b *rbacv1.ClusterRoleBinding) {
	setBindingDefaults(&b.RoleRef, b.Subjects)
}

// setBindingDefaults fills in the API groups of the role and of subjects that are users or groups. A service account
// belongs to the core group, whose name is empty.
func setBindingDefaults(ref *rbacv1.RoleRef, subjects []rbacv1.Subject) {
	if ref.APIGroup == "" {
		ref.APIGroup = rbacv1.GroupName
	}
	for i := range subjects {
		s := &subjects[i]
		if s.APIGroup == "" && (s.Kind == rbacv1.UserKind || s.Kind == rbacv1.GroupKind) {
			s.APIGroup = rbacv1.GroupName
		}
	}
}
