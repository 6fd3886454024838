package review

import (
	"context"
	"fmt"

	authorizationv1 "k8s.io/api/authorization/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/apiserver/pkg/registry/rest"

	"lanyard.dev/internal/apiserver/outage"
)

// RulesREST serves selfsubjectrulesreviews. Nothing is stored.
type RulesREST struct{ resolver authorizer.RuleResolver }

var _ rest.Creater = &RulesREST{}

// NewRules returns the resource.
func NewRules(resolver authorizer.RuleResolver) *RulesREST { return &RulesREST{resolver: resolver} }

// New implements rest.Creater.
func (*RulesREST) New() runtime.Object { return &authorizationv1.SelfSubjectRulesReview{} }

// Create sets the rules of the caller in spec.namespace, which is required.
func (r *RulesREST) Create(ctx context.Context, obj runtime.Object, validate rest.ValidateObjectFunc, _ *metav1.CreateOptions) (runtime.Object, error) {
	review, ok := obj.(*authorizationv1.SelfSubjectRulesReview)
	if !ok {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("not a SelfSubjectRulesReview: %T", obj))
	}
	caller, ok := request.UserFrom(ctx)
	if !ok {
		return nil, apierrors.NewBadRequest("no user present on request")
	}
	if review.Spec.Namespace == "" {
		return nil, apierrors.NewBadRequest("no namespace on request")
	}
	if validate != nil {
		if err := validate(ctx, obj.DeepCopyObject()); err != nil {
			return nil, err
		}
	}
	resource, nonResource, incomplete, err := r.resolver.RulesFor(ctx, caller, review.Spec.Namespace)
	if undecided := outage.Of(err); undecided != nil {
		return nil, undecided
	}
	review.Status = authorizationv1.SubjectRulesReviewStatus{
		ResourceRules: resourceRules(resource), NonResourceRules: nonResourceRules(nonResource), Incomplete: incomplete,
	}
	if err != nil {
		review.Status.EvaluationError = err.Error()
	}
	review.ManagedFields = nil // nothing is stored, so no manager owns a field
	return review, nil
}

func resourceRules(infos []authorizer.ResourceRuleInfo) []authorizationv1.ResourceRule {
	rules := make([]authorizationv1.ResourceRule, len(infos))
	for i, info := range infos {
		rules[i] = authorizationv1.ResourceRule{
			Verbs: info.GetVerbs(), APIGroups: info.GetAPIGroups(), Resources: info.GetResources(), ResourceNames: info.GetResourceNames(),
		}
	}
	return rules
}

func nonResourceRules(infos []authorizer.NonResourceRuleInfo) []authorizationv1.NonResourceRule {
	rules := make([]authorizationv1.NonResourceRule, len(infos))
	for i, info := range infos {
		rules[i] = authorizationv1.NonResourceRule{Verbs: info.GetVerbs(), NonResourceURLs: info.GetNonResourceURLs()}
	}
	return rules
}
