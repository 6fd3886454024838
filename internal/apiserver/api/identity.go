package api

import (
	"k8s.io/apimachinery/pkg/runtime"

	identityv1alpha1 "lanyard.dev/apis/identity/v1alpha1"
)

func identity() Group {
	return Group{Name: identityv1alpha1.GroupName, Versions: []Version{{
		Name: identityv1alpha1.SchemeGroupVersion.Version,
		Types: []runtime.Object{
			&identityv1alpha1.IssuedToken{}, &identityv1alpha1.IssuedTokenList{},
			&identityv1alpha1.IssuedCertificate{}, &identityv1alpha1.IssuedCertificateList{},
		},
	}}}
}
