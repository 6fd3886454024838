// Package noderestriction restricts what a node writes to its own Node, Lease and certificates, the pods bound to it,
// and tokens bound to those pods.
//
// It completes the node authorizer, which does not see the body of a request. Its rules and messages are the same as in
// Kubernetes' NodeRestriction.
package noderestriction

import (
	"context"
	"errors"
	"fmt"

	certificatesv1 "k8s.io/api/certificates/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/authorization/authorizer"

	"lanyard.dev/internal/apiserver/outage"
	"lanyard.dev/internal/nodeaccess"
	"lanyard.dev/internal/pki"
)

// Config holds what the plugin depends on.
type Config struct {
	// Pod and Node return a stored object, or a not-found API error.
	Pod  func(ctx context.Context, namespace, name string) (*corev1.Pod, error)
	Node func(ctx context.Context, name string) (*corev1.Node, error)
	// Authorizer decides whether a node may request tokens for audiences that its pods do not name.
	Authorizer authorizer.UnconditionalAuthorizer
	// Admits returns an error for the user of a certificate that is no longer valid: nodeaccess.Evictions.AdmitsUser. The plugin
	// calls it again after authentication, since a body may arrive long after its sender was authenticated.
	Admits func(user string, groups, notBefore []string) error
	// Audiences are the audiences of the API server. The token of a volume that names no audience has them.
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

// Validate implements admission.ValidationInterface. It checks objects as they will be stored, with all defaults.
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
	switch err := p.Admits(who.GetName(), who.GetGroups(), who.GetExtra()[nodeaccess.ExtraNotBefore]); {
	case errors.Is(err, nodeaccess.ErrEvicted):
		return admission.NewForbidden(a, err)
	case err != nil:
		return outage.New(err)
	}
	switch a.GetResource().GroupResource() {
	case corev1.Resource("pods"):
		return p.pod(ctx, node, a)
	case corev1.Resource("nodes"):
		return restrictNode(node, a)
	case corev1.Resource("serviceaccounts"):
		return p.token(ctx, node, a)
	case coordinationv1.Resource("leases"):
		return lease(node, a)
	case schema.GroupResource{Group: certificatesv1.GroupName, Resource: "certificatesigningrequests"}:
		return certificateOf(node, a)
	}
	return nil
}

func forbid(a admission.Attributes, format string, args ...any) error {
	return admission.NewForbidden(a, fmt.Errorf(format, args...))
}

// unexpected refuses an object of a type that does not belong to its resource. No handler of the server passes one.
func unexpected(a admission.Attributes, obj any) error { return forbid(a, "unexpected type %T", obj) }

// nameOf returns the name of the object. A create has it only in the object itself.
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

// certificateOf refuses certificate requests of a node for another name, for every signer.
func certificateOf(node string, a admission.Attributes) error {
	if a.GetOperation() != admission.Create || a.GetSubresource() != "" {
		return nil
	}
	r, ok := a.GetObject().(*certificatesv1.CertificateSigningRequest)
	if !ok {
		return unexpected(a, a.GetObject())
	}
	forNodes := r.Spec.SignerName == certificatesv1.KubeletServingSignerName ||
		r.Spec.SignerName == certificatesv1.KubeAPIServerClientKubeletSignerName
	asked, err := pki.ParseRequest(r.Spec.Request)
	switch own := nodeaccess.User(node); {
	case err != nil && forNodes:
		return forbid(a, "unable to parse csr: %w", err)
	case err != nil:
		return nil // validation refuses the request with a better message
	case asked.Subject.CommonName != own && (forNodes || nodeaccess.IsUser(asked.Subject.CommonName)):
		return forbid(a, "can only create a node CSR with CN=%s", own)
	}
	return nil
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

// storedPod returns the pod of a request before the change.
func (p *Plugin) storedPod(ctx context.Context, a admission.Attributes) (*corev1.Pod, error) {
	if old, ok := a.GetOldObject().(*corev1.Pod); ok {
		return old, nil
	}
	return p.Pod(ctx, a.GetNamespace(), nameOf(a))
}
