package review

import (
	"errors"
	"fmt"

	authorizationv1 "k8s.io/api/authorization/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/selection"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// fieldRequirements are those of a review, as a list that selects by fields has them. The error says that some could not be
// read; the others hold, so that the question is about more than was meant, never about less.
func fieldRequirements(a *authorizationv1.FieldSelectorAttributes) (fields.Requirements, error) {
	if a == nil {
		return nil, nil
	}
	if len(a.Requirements) == 0 {
		selector, err := fields.ParseSelector(a.RawSelector)
		if err != nil {
			return nil, err
		}
		return selector.Requirements(), nil
	}
	var found fields.Requirements
	var faults []error
	for _, r := range a.Requirements {
		operator := selection.Equals
		switch {
		case len(r.Values) != 1:
			faults = append(faults, fmt.Errorf("fields are compared with one value, and %q has %d", r.Key, len(r.Values)))
			continue
		case r.Operator == metav1.FieldSelectorOpNotIn:
			operator = selection.NotEquals
		case r.Operator != metav1.FieldSelectorOpIn:
			faults = append(faults, fmt.Errorf("%q is not a valid field selector operator", r.Operator))
			continue
		}
		found = append(found, fields.Requirement{Operator: operator, Field: r.Key, Value: r.Values[0]})
	}
	return found, errors.Join(faults...)
}

// labelOperators are the operators of labels, as reviews spell them.
var labelOperators = map[metav1.LabelSelectorOperator]selection.Operator{
	metav1.LabelSelectorOpIn: selection.In, metav1.LabelSelectorOpNotIn: selection.NotIn,
	metav1.LabelSelectorOpExists: selection.Exists, metav1.LabelSelectorOpDoesNotExist: selection.DoesNotExist,
}

// labelRequirements is fieldRequirements for labels.
func labelRequirements(a *authorizationv1.LabelSelectorAttributes) (labels.Requirements, error) {
	if a == nil {
		return nil, nil
	}
	if len(a.Requirements) == 0 {
		found, err := labels.ParseToRequirements(a.RawSelector)
		return found, err
	}
	var found labels.Requirements
	var faults []error
	for _, r := range a.Requirements {
		operator, ok := labelOperators[r.Operator]
		if !ok {
			faults = append(faults, fmt.Errorf("%q is not a valid label selector operator", r.Operator))
			continue
		}
		one, err := labels.NewRequirement(r.Key, operator, r.Values)
		if err != nil {
			faults = append(faults, err)
			continue
		}
		found = append(found, *one)
	}
	return found, errors.Join(faults...)
}

// validateSelectors returns the faults of what a review says of the objects it is about.
func validateSelectors(resource *authorizationv1.ResourceAttributes) field.ErrorList {
	if resource == nil {
		return nil
	}
	var errs field.ErrorList
	path := field.NewPath("spec", "resourceAttributes")
	if a := resource.FieldSelector; a != nil {
		at := path.Child("fieldSelector")
		errs = append(errs, validateForm(a.RawSelector, len(a.Requirements), at)...)
		for i, r := range a.Requirements {
			errs = append(errs, validateRequirement(r.Key, string(r.Operator), r.Values, at.Child("requirements").Index(i))...)
		}
	}
	if a := resource.LabelSelector; a != nil {
		at := path.Child("labelSelector")
		errs = append(errs, validateForm(a.RawSelector, len(a.Requirements), at)...)
		for i, r := range a.Requirements {
			errs = append(errs, validateRequirement(r.Key, string(r.Operator), r.Values, at.Child("requirements").Index(i))...)
		}
	}
	return errs
}

func validateForm(raw string, requirements int, path *field.Path) field.ErrorList {
	switch {
	case raw != "" && requirements > 0:
		return field.ErrorList{field.Invalid(path.Child("rawSelector"), raw, "may not specified at the same time as requirements")}
	case raw == "" && requirements == 0:
		return field.ErrorList{field.Required(path.Child("requirements"), fmt.Sprintf("when %s is specified, requirements or rawSelector is required", path))}
	}
	return nil
}

// validateRequirement lets operators pass that are not known: they are ignored, and said to be.
func validateRequirement(key, operator string, values []string, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	if key == "" {
		errs = append(errs, field.Required(path.Child("key"), "must be specified"))
	}
	switch operator {
	case string(metav1.FieldSelectorOpIn), string(metav1.FieldSelectorOpNotIn):
		if len(values) == 0 {
			errs = append(errs, field.Required(path.Child("values"), "must be specified when `operator` is 'In' or 'NotIn'"))
		}
	case string(metav1.FieldSelectorOpExists), string(metav1.FieldSelectorOpDoesNotExist):
		if len(values) > 0 {
			errs = append(errs, field.Forbidden(path.Child("values"), "may not be specified when `operator` is 'Exists' or 'DoesNotExist'"))
		}
	}
	return errs
}
