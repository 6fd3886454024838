package accessreview

import (
	"context"
	"fmt"

	authorizationv1 "k8s.io/api/authorization/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/apiserver/pkg/registry/rest"
)

// REST serves one kind of access review; nothing is stored.
type REST[T runtime.Object] struct {
	kind     string
	fresh    func() T
	validate func(ctx context.Context, review T) field.ErrorList
	answer   func(ctx context.Context, review T) error
}

var _ rest.Creater = &REST[*authorizationv1.SubjectAccessReview]{}

// NewSubject returns subjectaccessreviews: may this user do this?
func NewSubject(az authorizer.UnconditionalAuthorizer) *REST[*authorizationv1.SubjectAccessReview] {
	return &REST[*authorizationv1.SubjectAccessReview]{
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

// NewLocal returns localsubjectaccessreviews: may this user do this in this namespace?
func NewLocal(az authorizer.UnconditionalAuthorizer) *REST[*authorizationv1.LocalSubjectAccessReview] {
	return &REST[*authorizationv1.LocalSubjectAccessReview]{
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

// NewSelf returns selfsubjectaccessreviews: may I do this?
func NewSelf(az authorizer.UnconditionalAuthorizer) *REST[*authorizationv1.SelfSubjectAccessReview] {
	return &REST[*authorizationv1.SelfSubjectAccessReview]{
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
func (r *REST[T]) New() runtime.Object { return r.fresh() }

// Create answers the review in its status. A denial is an answer; that nobody can tell now is an error.
func (r *REST[T]) Create(ctx context.Context, obj runtime.Object, validate rest.ValidateObjectFunc, _ *metav1.CreateOptions) (runtime.Object, error) {
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
	return review, nil
}
