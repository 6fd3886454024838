package objects

import (
	"slices"

	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/validate/content"
	"k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// scope says where a role or binding applies.
type scope bool

// A role or binding applies within its namespace, or everywhere.
const (
	cluster    scope = false
	namespaced scope = true
)

// maxSize bounds the rules of a role and the subjects of a binding, in bytes as stored. etcd by default takes 1.5 MiB at
// once; the rest is left to metadata, so that what is refused is refused here, with its path, and not by etcd.
const maxSize = 1<<20 + 3<<17

// validateMeta returns the faults of a role's or binding's metadata. Their names may be anything that fits into a URL
// path: "system:node" and "Admins" are names.
func validateMeta(meta *metav1.ObjectMeta, in scope) field.ErrorList {
	return validation.ValidateObjectMeta(meta, bool(in), isName, field.NewPath("metadata"))
}

// validateMetaUpdate returns the faults of a change of metadata.
func validateMetaUpdate(updated, old *metav1.ObjectMeta) field.ErrorList {
	return validation.ValidateObjectMetaUpdate(updated, old, field.NewPath("metadata"))
}

func isName(name string, _ bool) []string { return content.IsPathSegmentName(name) }

// validateRules returns the faults of a role's rules.
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

// validateRoleRef returns the faults of a binding's role reference; kinds are those it may name.
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

// ValidateRoleRefUpdate refuses another role: whoever may edit a binding's subjects could else hand themselves any
// role's permissions, and the binding's name would come to lie.
func ValidateRoleRefUpdate(updated, old rbacv1.RoleRef) field.ErrorList {
	if updated == old {
		return nil
	}
	return field.ErrorList{field.Invalid(field.NewPath("roleRef"), updated, "cannot change roleRef")}
}

// validateSubjects returns the faults of a binding's subjects. A binding within a namespace may leave a service
// account's namespace out.
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
