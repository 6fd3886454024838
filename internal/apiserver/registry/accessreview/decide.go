package accessreview

import (
	"context"
	"errors"
	"fmt"

	authorizationv1 "k8s.io/api/authorization/v1"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"

	"lanyard.dev/internal/apiserver/outage"
)

// decide asks the authorizer about one action by one user. The error says that nobody can tell now.
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

// attributesOf is the action a review asks about; exactly one of resource and path is set.
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
