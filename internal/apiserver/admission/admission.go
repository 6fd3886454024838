// Package admission checks and completes objects before they are stored.
//
// It has one file per plugin. A plugin that is more than a file is a package below.
package admission

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/authorization/authorizer"

	"lanyard.dev/internal/apiserver/admission/noderestriction"
	"lanyard.dev/internal/apiserver/admission/podsecurity"
	"lanyard.dev/internal/apiserver/admission/serviceaccount"
)

// Config holds what the plugins depend on. Its functions read objects as they are stored now; those that return one
// object return a not-found API error if there is none.
type Config struct {
	Namespace func(ctx context.Context, name string) (*corev1.Namespace, error)
	Account   func(ctx context.Context, namespace, name string) (*corev1.ServiceAccount, error)
	Pod       func(ctx context.Context, namespace, name string) (*corev1.Pod, error)
	Node      func(ctx context.Context, name string) (*corev1.Node, error)
	// Pods returns the pods of a namespace.
	Pods  func(ctx context.Context, namespace string) ([]*corev1.Pod, error)
	Rules FindRules

	Authorizer  authorizer.UnconditionalAuthorizer
	Permissions Permissions
	// Admits returns an error for the user of a certificate that is no longer valid: nodeaccess.Evictions.AdmitsUser.
	Admits func(user string, groups, notBefore []string) error
	// Audiences are the audiences of the API server.
	Audiences []string
	// PodSecurity holds the Pod Security Standard of namespaces whose labels choose none.
	PodSecurity *podsecurity.Configuration
}

// New returns the plugins in the order in which they see a request. The first one refuses writes into namespaces that
// are missing or being deleted.
func New(c Config) (admission.Interface, error) {
	pods, err := podsecurity.New(podsecurity.Config{Namespace: c.Namespace, Pods: c.Pods, Defaults: c.PodSecurity})
	if err != nil {
		return nil, err
	}
	nodes := noderestriction.Config{Pod: c.Pod, Node: c.Node, Authorizer: c.Authorizer, Admits: c.Admits, Audiences: c.Audiences}
	return admission.NewChainHandler(
		newNamespaceLifecycle(c.Namespace),
		serviceaccount.New(c.Account),
		noderestriction.New(nodes),
		pods,
		newRenewCommand(c.Authorizer),
		newEscalation(c.Permissions, c.Authorizer, c.Rules),
		newCertificates(c.Authorizer, c.Admits),
	), nil
}

// allows reports whether the authorizer allows a request. It returns an error if the authorizer cannot decide now.
func allows(ctx context.Context, az authorizer.UnconditionalAuthorizer, request authorizer.AttributesRecord) (bool, error) {
	decision, _, err := az.Authorize(ctx, request)
	return err == nil && decision == authorizer.DecisionAllow, err
}
