package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// GroupName is the name of the API group.
const GroupName = "identity.lanyard.dev"

// SchemeGroupVersion is the group and version of the kinds in this package.
var SchemeGroupVersion = schema.GroupVersion{Group: GroupName, Version: "v1alpha1"}

// Resource returns the group and name of a resource of this group.
func Resource(name string) schema.GroupResource {
	return SchemeGroupVersion.WithResource(name).GroupResource()
}

// AddToScheme adds the kinds of this package to the scheme of a client.
func AddToScheme(s *runtime.Scheme) error {
	s.AddKnownTypes(SchemeGroupVersion,
		&IssuedToken{}, &IssuedTokenList{},
		&IssuedCertificate{}, &IssuedCertificateList{},
		&SigningKey{}, &SigningKeyList{},
	)
	metav1.AddToGroupVersion(s, SchemeGroupVersion)
	return nil
}
