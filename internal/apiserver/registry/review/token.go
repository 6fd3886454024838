package review

import (
	"context"
	"errors"
	"fmt"

	authenticationv1 "k8s.io/api/authentication/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/apiserver/pkg/registry/rest"

	"lanyard.dev/internal/apiserver/outage"
	"lanyard.dev/internal/token"
)

// TokenREST serves tokenreviews. Nothing is stored.
type TokenREST struct {
	tokens    authenticator.Token
	audiences authenticator.Audiences
}

var _ rest.Creater = &TokenREST{}

// NewToken returns the resource. audiences are the audiences of the API server, which are used if a review names none.
func NewToken(tokens authenticator.Token, audiences authenticator.Audiences) *TokenREST {
	return &TokenREST{tokens: tokens, audiences: audiences}
}

// New implements rest.Creater.
func (*TokenREST) New() runtime.Object { return &authenticationv1.TokenReview{} }

// Create verifies the token in the spec. For an invalid token, status.error is the reason. If the token cannot be verified now,
// Create returns an error, because the client would take any answer as a refusal of the token.
func (r *TokenREST) Create(ctx context.Context, obj runtime.Object, validate rest.ValidateObjectFunc, _ *metav1.CreateOptions) (runtime.Object, error) {
	review, ok := obj.(*authenticationv1.TokenReview)
	if !ok {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("not a TokenReview: %T", obj))
	}
	if review.Namespace != "" {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("namespace is not allowed on this type: %v", review.Namespace))
	}
	if review.Spec.Token == "" {
		return nil, apierrors.NewBadRequest("token is required for TokenReview in authentication")
	}
	if validate != nil {
		if err := validate(ctx, obj.DeepCopyObject()); err != nil {
			return nil, err
		}
	}
	status, err := r.review(ctx, review.Spec)
	if err != nil {
		return nil, err
	}
	review.Status = status
	review.ManagedFields = nil // nothing is stored, so no manager owns a field
	return review, nil
}

func (r *TokenREST) review(ctx context.Context, spec authenticationv1.TokenReviewSpec) (authenticationv1.TokenReviewStatus, error) {
	audiences := authenticator.Audiences(spec.Audiences)
	if len(audiences) == 0 {
		audiences = r.audiences
	}
	response, ok, err := r.tokens.AuthenticateToken(authenticator.WithAudiences(ctx, audiences), spec.Token)
	if undecided := outage.Of(err); undecided != nil {
		return authenticationv1.TokenReviewStatus{}, undecided
	}
	switch {
	case err != nil:
		return authenticationv1.TokenReviewStatus{Error: err.Error()}, nil
	case !ok || response == nil || response.User == nil:
		return authenticationv1.TokenReviewStatus{Error: errUnknown.Error()}, nil
	case len(audiences) > 0 && len(audiences.Intersect(response.Audiences)) == 0:
		return authenticationv1.TokenReviewStatus{Error: token.ErrAudience.Error()}, nil
	}
	return authenticationv1.TokenReviewStatus{
		Authenticated: true,
		User:          userInfo(response),
		Audiences:     response.Audiences,
	}, nil
}

// errUnknown is the error of a token that no known issuer issued. The text is Kubernetes'.
var errUnknown = errors.New("invalid bearer token")

func userInfo(response *authenticator.Response) authenticationv1.UserInfo {
	info := authenticationv1.UserInfo{
		Username: response.User.GetName(), UID: response.User.GetUID(), Groups: response.User.GetGroups(),
	}
	for key, values := range response.User.GetExtra() {
		if info.Extra == nil {
			info.Extra = map[string]authenticationv1.ExtraValue{}
		}
		info.Extra[key] = values
	}
	return info
}

// SelfREST serves selfsubjectreviews. Nothing is stored.
type SelfREST struct{}

var _ rest.Creater = &SelfREST{}

// New implements rest.Creater.
func (*SelfREST) New() runtime.Object { return &authenticationv1.SelfSubjectReview{} }

// Create sets the caller's user info.
func (*SelfREST) Create(ctx context.Context, obj runtime.Object, validate rest.ValidateObjectFunc, _ *metav1.CreateOptions) (runtime.Object, error) {
	if _, ok := obj.(*authenticationv1.SelfSubjectReview); !ok {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("not a SelfSubjectReview: %T", obj))
	}
	if validate != nil {
		if err := validate(ctx, obj.DeepCopyObject()); err != nil {
			return nil, err
		}
	}
	caller, ok := request.UserFrom(ctx)
	if !ok {
		return nil, apierrors.NewBadRequest("no user present on request")
	}
	extra := make(map[string]authenticationv1.ExtraValue, len(caller.GetExtra()))
	for key, values := range caller.GetExtra() {
		extra[key] = values
	}
	return &authenticationv1.SelfSubjectReview{
		ObjectMeta: metav1.ObjectMeta{CreationTimestamp: metav1.Now()},
		Status: authenticationv1.SelfSubjectReviewStatus{UserInfo: authenticationv1.UserInfo{
			Username: caller.GetName(), UID: caller.GetUID(), Groups: caller.GetGroups(), Extra: extra,
		}},
	}, nil
}
