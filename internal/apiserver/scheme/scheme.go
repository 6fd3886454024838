package scheme

import (
	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	certificatesv1 "k8s.io/api/certificates/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	policyv1 "k8s.io/api/policy/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
)

// kinds is every kind with an internal form of the same Go type, by group and version.
var kinds = map[schema.GroupVersion][]runtime.Object{
	corev1.SchemeGroupVersion: {
		&corev1.Namespace{}, &corev1.NamespaceList{},
		&corev1.ServiceAccount{}, &corev1.ServiceAccountList{},
		&corev1.Secret{}, &corev1.SecretList{},
		&corev1.ConfigMap{}, &corev1.ConfigMapList{},
		&corev1.Pod{}, &corev1.PodList{}, &corev1.Binding{},
		&corev1.Node{}, &corev1.NodeList{},
		&corev1.Event{}, &corev1.EventList{},
		&corev1.PodLogOptions{}, &corev1.PodExecOptions{}, &corev1.PodAttachOptions{}, &corev1.PodPortForwardOptions{},
	},
	coordinationv1.SchemeGroupVersion: {&coordinationv1.Lease{}, &coordinationv1.LeaseList{}},
	authenticationv1.SchemeGroupVersion: {
		&authenticationv1.TokenRequest{}, &authenticationv1.TokenReview{}, &authenticationv1.SelfSubjectReview{},
	},
	authorizationv1.SchemeGroupVersion: {
		&authorizationv1.SubjectAccessReview{}, &authorizationv1.SelfSubjectAccessReview{},
		&authorizationv1.LocalSubjectAccessReview{}, &authorizationv1.SelfSubjectRulesReview{},
	},
	certificatesv1.SchemeGroupVersion: {&certificatesv1.CertificateSigningRequest{}, &certificatesv1.CertificateSigningRequestList{}},
	policyv1.SchemeGroupVersion:       {&policyv1.Eviction{}},
	rbacv1.SchemeGroupVersion: {
		&rbacv1.Role{}, &rbacv1.RoleList{}, &rbacv1.RoleBinding{}, &rbacv1.RoleBindingList{},
		&rbacv1.ClusterRole{}, &rbacv1.ClusterRoleList{}, &rbacv1.ClusterRoleBinding{}, &rbacv1.ClusterRoleBindingList{},
	},
}

// versions is the order in which groups are registered; discovery lists them in it.
var versions = []schema.GroupVersion{
	corev1.SchemeGroupVersion, authenticationv1.SchemeGroupVersion, authorizationv1.SchemeGroupVersion,
	certificatesv1.SchemeGroupVersion, coordinationv1.SchemeGroupVersion, eventsv1.SchemeGroupVersion, policyv1.SchemeGroupVersion, rbacv1.SchemeGroupVersion,
}

// New returns the scheme the server decodes, defaults, converts and stores with.
func New() *runtime.Scheme {
	s := newVersioned()
	for _, gv := range versions {
		internal := schema.GroupVersion{Group: gv.Group, Version: runtime.APIVersionInternal}
		s.AddKnownTypes(internal, kinds[gv]...)
	}
	// Events are stored as core Events; their newer group shows the same objects in another form.
	s.AddKnownTypes(schema.GroupVersion{Group: eventsv1.GroupName, Version: runtime.APIVersionInternal}, &corev1.Event{}, &corev1.EventList{})
	utilruntime.Must(addEventConversions(s))
	utilruntime.Must(addQueryConversions(s))
	utilruntime.Must(addFieldLabels(s))
	addDefaults(s)
	return s
}

// NewPublished returns a scheme of the published versions only. OpenAPI names are made from it: from the full scheme
// the internal version would leak into the group-version-kind lists that clients read.
func NewPublished() *runtime.Scheme { return newVersioned() }

func newVersioned() *runtime.Scheme {
	s := runtime.NewScheme()
	for _, gv := range versions {
		s.AddKnownTypes(gv, kinds[gv]...)
		metav1.AddToGroupVersion(s, gv)
		utilruntime.Must(s.SetVersionPriority(gv))
	}
	s.AddKnownTypes(eventsv1.SchemeGroupVersion, &eventsv1.Event{}, &eventsv1.EventList{})
	s.AddUnversionedTypes(schema.GroupVersion{Version: "v1"},
		&metav1.Status{}, &metav1.APIVersions{}, &metav1.APIGroupList{}, &metav1.APIGroup{}, &metav1.APIResourceList{})
	return s
}

// NewCodecs returns the codecs of s.
func NewCodecs(s *runtime.Scheme) serializer.CodecFactory { return serializer.NewCodecFactory(s) }
