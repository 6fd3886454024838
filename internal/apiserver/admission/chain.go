package admission

import (
	"k8s.io/apiserver/pkg/admission"

	"lanyard.dev/internal/apiserver/admission/certificates"
	"lanyard.dev/internal/apiserver/admission/escalation"
	"lanyard.dev/internal/apiserver/admission/namespacelifecycle"
	"lanyard.dev/internal/apiserver/admission/noderestriction"
	"lanyard.dev/internal/apiserver/admission/onrenew"
	"lanyard.dev/internal/apiserver/admission/podsecurity"
	"lanyard.dev/internal/apiserver/admission/serviceaccount"
)

// New returns every plugin in order: first whether anything may be made in the namespace at all.
func New(namespaces namespacelifecycle.Find, accounts serviceaccount.Find, nodes noderestriction.Config, pods *podsecurity.Plugin,
	commands *onrenew.Plugin, grants *escalation.Plugin, requests *certificates.Plugin,
) admission.Interface {
	return admission.NewChainHandler(
		namespacelifecycle.New(namespaces),
		serviceaccount.New(accounts),
		noderestriction.New(nodes),
		pods,
		commands,
		grants,
		requests,
	)
}
