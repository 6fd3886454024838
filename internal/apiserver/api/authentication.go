package api

import (
	authenticationv1 "k8s.io/api/authentication/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/registry/rest"

	"lanyard.dev/internal/apiserver/registry/review"
)

func authentication() Group {
	return Group{Name: authenticationv1.GroupName, Versions: []Version{{
		Name: "v1",
		// A TokenRequest is posted to a subresource of a service account.
		Types: []runtime.Object{&authenticationv1.TokenRequest{}},
		Resources: []Resource{
			{
				Name: "tokenreviews", Singular: "tokenreview", Kind: &authenticationv1.TokenReview{}, Credentials: true,
				Ephemeral: func(b Backends) rest.Creater { return review.NewToken(b.Tokens, b.Audiences) },
			},
			{
				Name: "selfsubjectreviews", Singular: "selfsubjectreview", Kind: &authenticationv1.SelfSubjectReview{},
				Ephemeral: func(Backends) rest.Creater { return &review.SelfREST{} },
			},
		},
	}}}
}
