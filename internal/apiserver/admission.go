package apiserver

import (
	libraryadmission "k8s.io/apiserver/pkg/admission"

	"lanyard.dev/internal/apiserver/admission"
	"lanyard.dev/internal/apiserver/admission/certificates"
	"lanyard.dev/internal/apiserver/admission/escalation"
	"lanyard.dev/internal/apiserver/admission/noderestriction"
	"lanyard.dev/internal/apiserver/admission/onrenew"
	"lanyard.dev/internal/apiserver/admission/podsecurity"
)

// newAdmission returns the admission plugins. defaults is the Pod Security Standard of namespaces whose labels choose none.
func newAdmission(s *stores, p policy, i identity, defaults *podsecurity.Configuration) (libraryadmission.Interface, error) {
	pods, err := podsecurity.New(podsecurity.Config{Namespace: s.namespace, Pods: s.podsIn, Defaults: defaults})
	if err != nil {
		return nil, err
	}
	nodes := noderestriction.Config{
		Pod: s.pod, Node: s.node, Authorizer: p.authorizer, Admits: i.evictions.AdmitsUser, Audiences: i.audiences,
	}
	return admission.New(s.namespace, s.serviceAccount, nodes, pods, onrenew.New(p.authorizer),
		escalation.New(p.index, p.authorizer, s.rules), certificates.New(p.authorizer, i.evictions.AdmitsUser)), nil
}
