package api

import (
	authorizationv1 "k8s.io/api/authorization/v1"
	"k8s.io/apiserver/pkg/registry/rest"

	"lanyard.dev/internal/apiserver/registry/review"
)

func authorization() Group {
	return Group{Name: authorizationv1.GroupName, Versions: []Version{{Name: "v1", Resources: []Resource{
		{
			Name: "subjectaccessreviews", Singular: "subjectaccessreview", Kind: &authorizationv1.SubjectAccessReview{},
			Ephemeral: func(b Backends) rest.Creater { return review.NewSubject(b.Authorizer) },
		},
		{
			Name: "selfsubjectaccessreviews", Singular: "selfsubjectaccessreview", Kind: &authorizationv1.SelfSubjectAccessReview{},
			Ephemeral: func(b Backends) rest.Creater { return review.NewSelf(b.Authorizer) },
		},
		{
			Name: "localsubjectaccessreviews", Singular: "localsubjectaccessreview", Namespaced: true,
			Kind:      &authorizationv1.LocalSubjectAccessReview{},
			Ephemeral: func(b Backends) rest.Creater { return review.NewLocal(b.Authorizer) },
		},
		{
			Name: "selfsubjectrulesreviews", Singular: "selfsubjectrulesreview", Kind: &authorizationv1.SelfSubjectRulesReview{},
			Ephemeral: func(b Backends) rest.Creater { return review.NewRules(b.Rules) },
		},
	}}}}
}
