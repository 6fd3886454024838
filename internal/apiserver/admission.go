package apiserver

import (
	libraryadmission "k8s.io/apiserver/pkg/admission"

	"lanyard.dev/internal/apiserver/admission"
	"lanyard.dev/internal/apiserver/admission/podsecurity"
)

// newAdmission returns the admission plugins. defaults is the Pod Security Standard of namespaces whose labels choose none.
func newAdmission(s *stores, p policy, i identity, defaults *podsecurity.Configuration) (libraryadmission.Interface, error) {
	return admission.New(admission.Config{
		Namespace: s.namespace, Account: s.serviceAccount, Pod: s.pod, Node: s.node, Pods: s.podsIn, Rules: s.rules,
		Authorizer: p.authorizer, Permissions: p.index, Admits: i.evictions.AdmitsUser, Audiences: i.audiences, PodSecurity: defaults,
	})
}
