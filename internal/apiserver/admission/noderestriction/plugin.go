// Package noderestriction keeps nodes to what is theirs: their own Node and Lease, the pods bound to them, and tokens
// bound to those pods.
//
// It completes the node authorizer, which does not see what a request carries. Its rules and words are those of
// Kubernetes' NodeRestriction.
package noderestriction

import (
	"context"
	"fmt"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/authorization/authorizer"

	"lanyard.dev/internal/nodeaccess"
)

// Config is what the plugin asks.
type Config struct {
	// Pod and Node return an object as it is now, or a not-found API error.
	Pod  func(ctx context.Context, namespace, name string) (*corev1.Pod, error)
	Node func(ctx context.Context, name string) (*corev1.Node, error)
	// Authorizer may let a node have tokens for more audiences than its pods ask for.
	Authorizer authorizer.UnconditionalAuthorizer
	// Audiences are the API server's own: a volume that names none is for them.
	Audiences []string
}

// Plugin is the admission plugin.
type Plugin struct {
	*admission.Handler
	Config
}

var _ admission.ValidationInterface = &Plugin{}

// New returns the plugin.
func New(c Config) *Plugin {
	return &Plugin{Handler: admission.NewHandler(admission.Create, admission.Update, admission.Delete), Config: c}
}

// Validate implements admission.ValidationInterface. It looks at objects as they will be stored, after every default.
func (p *Plugin) Validate(ctx context.Context, a admission.Attributes, _ admission.ObjectInterfaces) error {
	who := a.GetUserInfo()
	if who == nil {
		return nil
	}
	node, ok := nodeaccess.Identify(who.GetName(), who.GetGroups())
	switch {
	case !ok:
		return nil
	case node == "":
		return forbid(a, "could not determine node from user %q", who.GetName())
	}
	switch a.GetResource().GroupResource() {
	case corev1.Resource("pods"):
		return p.pod(ctx, node, a)
	case corev1.Resource("nodes"):
		return self(node, a)
	case corev1.Resource("serviceaccounts"):
		return p.token(ctx, node, a)
	case coordinationv1.Resource("leases"):
		return lease(node, a)
	}
	return nil
}

func forbid(a admission.Attributes, format string, args ...any) error {
	return admission.NewForbidden(a, fmt.Errorf(format, args...))
}

// unexpected refuses what no handler passes here: the object is of another kind than its resource.
func unexpected(a admission.Attributes, obj any) error { return forbid(a, "unexpected type %T", obj) }

// nameOf is the name of the object in question, which a create has in the object alone.
func nameOf(a admission.Attributes) string {
	if a.GetName() != "" || a.GetObject() == nil {
		return a.GetName()
	}
	m, err := meta.Accessor(a.GetObject())
	if err != nil {
		return ""
	}
	return m.GetName()
}

func lease(node string, a admission.Attributes) error {
	switch {
	case a.GetNamespace() != corev1.NamespaceNodeLease:
		return forbid(a, "can only access leases in the %q system namespace", corev1.NamespaceNodeLease)
	case nameOf(a) != node:
		return forbid(a, "can only access node lease with the same name as the requesting node")
	}
	return nil
}

// existing is the pod that a request is about, as it was before.
func (p *Plugin) existing(ctx context.Context, a admission.Attributes) (*corev1.Pod, error) {
	if old, ok := a.GetOldObject().(*corev1.Pod); ok {
		return old, nil
	}
	return p.Pod(ctx, a.GetNamespace(), nameOf(a))
}
