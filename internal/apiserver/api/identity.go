package api

import (
	"k8s.io/apiserver/pkg/registry/rest"

	identityv1alpha1 "lanyard.dev/apis/identity/v1alpha1"
	"lanyard.dev/internal/apiserver/registry"
	"lanyard.dev/internal/apiserver/registry/issued"
	"lanyard.dev/internal/apiserver/registry/signingkey"
)

func identity() Group {
	return Group{Name: identityv1alpha1.GroupName, Versions: []Version{{
		Name: identityv1alpha1.SchemeGroupVersion.Version,
		Resources: []Resource{
			{
				Name: "issuedtokens", Singular: "issuedtoken", ShortNames: []string{"tok"}, Categories: []string{"credentials"}, Namespaced: true,
				Kind: &identityv1alpha1.IssuedToken{}, List: &identityv1alpha1.IssuedTokenList{}, Columns: issued.TokenColumns,
				Computed: Projection[*identityv1alpha1.IssuedToken]{
					Storage: func(d registry.Description, b Backends) rest.Storage { return issued.NewTokens(d, b.IssuedTokens) },
					Row:     issued.TokenRow, Fields: issued.TokenFields,
				},
			},
			{
				Name: "issuedcertificates", Singular: "issuedcertificate", ShortNames: []string{"cert"}, Categories: []string{"credentials"},
				Kind: &identityv1alpha1.IssuedCertificate{}, List: &identityv1alpha1.IssuedCertificateList{}, Columns: issued.CertificateColumns,
				Computed: Projection[*identityv1alpha1.IssuedCertificate]{
					Storage: func(d registry.Description, b Backends) rest.Storage {
						return issued.NewCertificates(d, b.IssuedCertificates)
					},
					Row: issued.CertificateRow, Fields: issued.CertificateFields,
				},
			},
			{
				Name: "signingkeys", Singular: "signingkey",
				Kind: &identityv1alpha1.SigningKey{}, List: &identityv1alpha1.SigningKeyList{}, Columns: signingkey.Columns,
				Computed: Projection[*identityv1alpha1.SigningKey]{
					Storage: func(d registry.Description, b Backends) rest.Storage { return signingkey.NewREST(d, b.SigningKeys) },
					Row:     signingkey.Row, Fields: signingkey.Fields,
				},
			},
		},
	}}}
}
