package review

import (
	"context"
	"errors"
	"fmt"

	authorizationv1 "k8s.io/api/authorization/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/selection"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/apiserver/pkg/registry/rest"

	"lanyard.dev/internal/apiserver/outage"
)

// object is an API object with metadata.
type object interface {
	runtime.Object
	metav1.Object
}

// AccessREST serves one kind of access review. Nothing is stored.
type AccessREST[T object] struct {
	kind     string
	fresh    func() T
	validate func(ctx context.Context, review T) field.ErrorList
	answer   func(ctx context.Context, review T) error
}

var _ rest.Creater = &AccessREST[*authorizationv1.SubjectAccessReview]{}

// NewSubject returns subjectaccessreviews: whether a user may do something.
func NewSubject(az authorizer.UnconditionalAuthorizer) *AccessREST[*authorizationv1.SubjectAccessReview] {
	return &AccessREST[*authorizationv1.SubjectAccessReview]{
		kind:  "SubjectAccessReview",
		fresh: func() *authorizationv1.SubjectAccessReview { return &authorizationv1.SubjectAccessReview{} },
		validate: func(_ context.Context, r *authorizationv1.SubjectAccessReview) field.ErrorList {
			return append(validateSubject(r.Spec), validateMetadata(r.ObjectMeta)...)
		},
		answer: func(ctx context.Context, r *authorizationv1.SubjectAccessReview) (err error) {
			r.Status, err = decide(ctx, az, attributesOf(userOf(r.Spec), r.Spec.ResourceAttributes, r.Spec.NonResourceAttributes))
			return err
		},
	}
}

// NewLocal returns localsubjectaccessreviews: whether a user may do something in a namespace.
func NewLocal(az authorizer.UnconditionalAuthorizer) *AccessREST[*authorizationv1.LocalSubjectAccessReview] {
	return &AccessREST[*authorizationv1.LocalSubjectAccessReview]{
		kind:  "LocalSubjectAccessReview",
		fresh: func() *authorizationv1.LocalSubjectAccessReview { return &authorizationv1.LocalSubjectAccessReview{} },
		validate: func(ctx context.Context, r *authorizationv1.LocalSubjectAccessReview) field.ErrorList {
			if r.Namespace == "" {
				r.Namespace = request.NamespaceValue(ctx)
			}
			return append(validateLocal(r), validateMetadata(r.ObjectMeta)...)
		},
		answer: func(ctx context.Context, r *authorizationv1.LocalSubjectAccessReview) (err error) {
			r.Status, err = decide(ctx, az, attributesOf(userOf(r.Spec), r.Spec.ResourceAttributes, nil))
			return err
		},
	}
}

// NewSelf returns selfsubjectaccessreviews: whether the caller may do something.
func NewSelf(az authorizer.UnconditionalAuthorizer) *AccessREST[*authorizationv1.SelfSubjectAccessReview] {
	return &AccessREST[*authorizationv1.SelfSubjectAccessReview]{
		kind:  "SelfSubjectAccessReview",
		fresh: func() *authorizationv1.SelfSubjectAccessReview { return &authorizationv1.SelfSubjectAccessReview{} },
		validate: func(_ context.Context, r *authorizationv1.SelfSubjectAccessReview) field.ErrorList {
			return append(validateAction(r.Spec.ResourceAttributes, r.Spec.NonResourceAttributes), validateMetadata(r.ObjectMeta)...)
		},
		answer: func(ctx context.Context, r *authorizationv1.SelfSubjectAccessReview) (err error) {
			caller, _ := request.UserFrom(ctx)
			r.Status, err = decide(ctx, az, attributesOf(caller, r.Spec.ResourceAttributes, r.Spec.NonResourceAttributes))
			return err
		},
	}
}

// New implements rest.Creater.
func (r *AccessREST[T]) New() runtime.Object { return r.fresh() }

// Create sets the status of the review. A denial is an answer. If the question cannot be decided now, Create returns an
// error.
func (r *AccessREST[T]) Create(ctx context.Context, obj runtime.Object, validate rest.ValidateObjectFunc, _ *metav1.CreateOptions) (runtime.Object, error) {
	review, ok := obj.(T)
	if !ok {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("not a %s: %T", r.kind, obj))
	}
	if _, ok := request.UserFrom(ctx); !ok {
		return nil, apierrors.NewBadRequest("no user present on request")
	}
	if errs := r.validate(ctx, review); len(errs) > 0 {
		return nil, apierrors.NewInvalid(authorizationv1.SchemeGroupVersion.WithKind(r.kind).GroupKind(), "", errs)
	}
	if validate != nil {
		if err := validate(ctx, obj.DeepCopyObject()); err != nil {
			return nil, err
		}
	}
	if err := r.answer(ctx, review); err != nil {
		return nil, err
	}
	review.SetManagedFields(nil) // nothing is stored, so no manager owns a field
	return review, nil
}

// decide authorizes one action of one user. It returns an error if that cannot be decided now.
func decide(ctx context.Context, az authorizer.UnconditionalAuthorizer, attributes authorizer.Attributes) (authorizationv1.SubjectAccessReviewStatus, error) {
	decision, reason, err := az.Authorize(ctx, attributes)
	status := authorizationv1.SubjectAccessReviewStatus{
		Allowed: decision == authorizer.DecisionAllow,
		Denied:  decision == authorizer.DecisionDeny,
		Reason:  reason,
	}
	if undecided := outage.Of(err); undecided != nil && !status.Allowed && !status.Denied {
		return status, undecided
	}
	if _, fault := attributes.GetFieldSelector(); fault != nil {
		err = errors.Join(err, fmt.Errorf("spec.resourceAttributes.fieldSelector partially ignored due to parse error: %w", fault))
	}
	if _, fault := attributes.GetLabelSelector(); fault != nil {
		err = errors.Join(err, fmt.Errorf("spec.resourceAttributes.labelSelector partially ignored due to parse error: %w", fault))
	}
	if err != nil {
		status.EvaluationError = err.Error()
	}
	return status, nil
}

// attributesOf returns the attributes of the action that a review is about. Either the resource or the path must be set.
func attributesOf(who user.Info, resource *authorizationv1.ResourceAttributes, path *authorizationv1.NonResourceAttributes) authorizer.Attributes {
	if resource == nil {
		return authorizer.AttributesRecord{User: who, Verb: path.Verb, Path: path.Path}
	}
	version := resource.Version
	if version == "" {
		version = "*"
	}
	fieldSelector, fieldFault := fieldRequirements(resource.FieldSelector)
	labelSelector, labelFault := labelRequirements(resource.LabelSelector)
	return authorizer.AttributesRecord{
		FieldSelectorRequirements: fieldSelector, FieldSelectorParsingErr: fieldFault,
		LabelSelectorRequirements: labelSelector, LabelSelectorParsingErr: labelFault,
		User: who, ResourceRequest: true,
		Verb: resource.Verb, Namespace: resource.Namespace, APIGroup: resource.Group, APIVersion: version,
		Resource: resource.Resource, Subresource: resource.Subresource, Name: resource.Name,
	}
}

func userOf(spec authorizationv1.SubjectAccessReviewSpec) user.Info {
	who := &user.DefaultInfo{Name: spec.User, UID: spec.UID, Groups: spec.Groups}
	for key, values := range spec.Extra {
		if who.Extra == nil {
			who.Extra = map[string][]string{}
		}
		who.Extra[key] = values
	}
	return who
}

func validateSubject(spec authorizationv1.SubjectAccessReviewSpec) field.ErrorList {
	path := field.NewPath("spec")
	errs := validateAction(spec.ResourceAttributes, spec.NonResourceAttributes)
	if spec.User == "" && len(spec.Groups) == 0 {
		errs = append(errs, field.Invalid(path.Child("user"), spec.User, "at least one of user or group must be specified"))
	}
	return errs
}

func validateAction(resource *authorizationv1.ResourceAttributes, nonResource *authorizationv1.NonResourceAttributes) field.ErrorList {
	path := field.NewPath("spec")
	switch {
	case resource != nil && nonResource != nil:
		return field.ErrorList{field.Invalid(path.Child("nonResourceAttributes"), nonResource, "cannot be specified in combination with resourceAttributes")}
	case resource == nil && nonResource == nil:
		return field.ErrorList{field.Invalid(path.Child("resourceAttributes"), resource, "exactly one of nonResourceAttributes or resourceAttributes must be specified")}
	}
	return validateSelectors(resource)
}

func validateLocal(review *authorizationv1.LocalSubjectAccessReview) field.ErrorList {
	path := field.NewPath("spec").Child("resourceAttributes")
	errs := validateSubject(review.Spec)
	if review.Spec.NonResourceAttributes != nil {
		errs = append(errs, field.Invalid(field.NewPath("spec").Child("nonResourceAttributes"), review.Spec.NonResourceAttributes, "disallowed on this kind of request"))
	}
	if r := review.Spec.ResourceAttributes; r != nil && r.Namespace != review.Namespace {
		errs = append(errs, field.Invalid(path.Child("namespace"), r.Namespace, "must match metadata.namespace"))
	}
	return errs
}

// validateMetadata refuses metadata, because a review is not stored. The server sets the managed fields.
func validateMetadata(meta metav1.ObjectMeta) field.ErrorList {
	meta.ManagedFields, meta.Namespace = nil, ""
	if equality.Semantic.DeepEqual(meta, metav1.ObjectMeta{}) {
		return nil
	}
	return field.ErrorList{field.Invalid(field.NewPath("metadata"), meta, "must be empty")}
}

// fieldRequirements returns the requirements of a field selector in a review, in the form of a list request. The error reports
// that some requirements could not be read. The others are used: the answer is then about more objects than requested, never
// about fewer.
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

// labelOperators are the operators of label selectors, by their names in reviews.
var labelOperators = map[metav1.LabelSelectorOperator]selection.Operator{
	metav1.LabelSelectorOpIn: selection.In, metav1.LabelSelectorOpNotIn: selection.NotIn,
	metav1.LabelSelectorOpExists: selection.Exists, metav1.LabelSelectorOpDoesNotExist: selection.DoesNotExist,
}

// labelRequirements is like fieldRequirements, for labels.
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

// validateSelectors returns the faults of the selectors of a review.
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

// validateRequirement accepts unknown operators. Such requirements are ignored, and the answer reports this.
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
