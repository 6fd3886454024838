package certificates

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/client-go/kubernetes"
	certificatesv1client "k8s.io/client-go/kubernetes/typed/certificates/v1"
	"k8s.io/utils/clock"

	"lanyard.dev/internal/controller"
	"lanyard.dev/internal/nodeaccess"
	"lanyard.dev/internal/pki"
)

// Admits returns nodeaccess.ErrEvicted if a request was made with the certificate of a node from before its eviction.
// It is nodeaccess.Evictions.AdmitsUser.
type Admits func(user string, groups, notBefore []string) error

// Approver approves the requests by which machines become nodes and nodes renew their certificates. It listens to the
// feed of certificate signing requests.
//
// It approves a client certificate of a node if the requester may create certificatesigningrequests/nodeclient, which
// is for any node, or .../selfnodeclient, which is for the requester's own certificate. It approves a serving
// certificate for the node that requests it, if the node may create .../selfnodeserver, at addresses that are not the
// server's. It leaves every other request for an administrator to decide, and denies none.
type Approver struct {
	requests certificatesv1client.CertificateSigningRequestInterface
	ApproverConfig
	queue *controller.Queue[string]
}

// ApproverConfig configures an Approver.
type ApproverConfig struct {
	// Client is the client of bootstrap.CertificateController.
	Client kubernetes.Interface
	// Authorizer decides what the requester may do. A SubjectAccessReview would ask the same authorizer.
	Authorizer authorizer.UnconditionalAuthorizer
	Taken      Taken
	Admits     Admits
	Clock      clock.WithTicker
}

// NewApprover returns an approver.
func NewApprover(c ApproverConfig) *Approver {
	return &Approver{
		requests: c.Client.CertificatesV1().CertificateSigningRequests(), ApproverConfig: c,
		queue: controller.NewQueue[string]("approve the certificate request of a node", 200*time.Millisecond, 15*time.Minute, c.Clock),
	}
}

// Set implements mirror.Listener.
func (c *Approver) Set(obj runtime.Object) {
	if csr, ok := obj.(*certificatesv1.CertificateSigningRequest); ok && !decided(csr) {
		c.queue.Add(csr.Name)
	}
}

// Delete implements mirror.Listener.
func (c *Approver) Delete(runtime.Object) {}

// Run approves requests until ctx ends.
func (c *Approver) Run(ctx context.Context) { c.queue.Run(ctx, c.check) }

func (c *Approver) check(ctx context.Context, name string) error {
	csr, err := c.requests.Get(ctx, name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read certificate request %s: %w", name, err)
	}
	err = c.Admits(csr.Spec.Username, csr.Spec.Groups, csr.Spec.Extra[nodeaccess.ExtraNotBefore])
	if errors.Is(err, nodeaccess.ErrEvicted) {
		return nil // it must never be approved
	}
	if err != nil {
		return err
	}
	condition, err := Decide(ctx, csr, c.Authorizer, c.Taken)
	if errors.Is(err, ErrNotAllowed) {
		// A later policy may allow it.
		return errors.Join(controller.ErrNotYet, err)
	}
	if err != nil || condition == nil {
		return err
	}
	return c.approve(ctx, csr, condition)
}

// approve adds the condition to the request, as identified by its UID, unless it has been decided in the meantime.
func (c *Approver) approve(ctx context.Context, read *certificatesv1.CertificateSigningRequest, condition *certificatesv1.CertificateSigningRequestCondition) error {
	now := metav1.NewTime(c.Clock.Now())
	condition.LastUpdateTime, condition.LastTransitionTime = now, now
	write := func(ctx context.Context, csr *certificatesv1.CertificateSigningRequest, options metav1.UpdateOptions) (*certificatesv1.CertificateSigningRequest, error) {
		return c.requests.UpdateApproval(ctx, csr.Name, csr, options)
	}
	_, err := controller.Change(ctx, read.Name, c.requests.Get, write, func(csr *certificatesv1.CertificateSigningRequest) bool {
		if csr.UID != read.UID || decided(csr) {
			return false
		}
		csr.Status.Conditions = append(csr.Status.Conditions, *condition)
		return true
	})
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("approve certificate request %s: %w", read.Name, err)
	}
	return nil
}

// ErrNotAllowed means that a request is for the certificate of a node, and that policy does not allow its approval.
var ErrNotAllowed = errors.New("recognized as a node's request, but policy does not allow its requester to have it approved")

// permission is a subresource whose creation lets a requester have a request approved, and the message of the approval.
type permission struct{ subresource, message string }

// Taken reports whether clients know the server itself by a name or address.
type Taken func(name string) bool

// Decide returns the condition that approves csr. It returns nil if csr has been decided, or is not for the certificate
// of a node: a client certificate, or a serving certificate whose names are not taken. An error other than
// ErrNotAllowed means that there is no decision now. The requester is the one that the server wrote into spec when csr
// was created.
func Decide(ctx context.Context, csr *certificatesv1.CertificateSigningRequest, az authorizer.UnconditionalAuthorizer, taken Taken) (*certificatesv1.CertificateSigningRequestCondition, error) {
	serving := csr.Spec.SignerName == certificatesv1.KubeletServingSignerName
	if decided(csr) || !serving && csr.Spec.SignerName != certificatesv1.KubeAPIServerClientKubeletSignerName {
		return nil, nil
	}
	request, err := pki.ParseRequest(csr.Spec.Request)
	if err != nil {
		return nil, fmt.Errorf("certificate request %s: spec.request: %w", csr.Name, err)
	}
	wanted := permissions(request, csr)
	switch {
	case serving && isServing(request, csr, taken):
		wanted = []permission{{"selfnodeserver", "Auto approving self kubelet server certificate after SubjectAccessReview."}}
	case serving || !isNode(request, csr.Spec.Usages):
		return nil, nil
	}
	for _, p := range wanted {
		allowed, err := allows(ctx, az, csr, p.subresource)
		if err != nil {
			return nil, fmt.Errorf("certificate request %s: %w", csr.Name, err)
		}
		if allowed {
			return &certificatesv1.CertificateSigningRequestCondition{
				Type: certificatesv1.CertificateApproved, Status: corev1.ConditionTrue, Reason: "AutoApproved", Message: p.message,
			}, nil
		}
	}
	return nil, fmt.Errorf("certificate request %s: %w", csr.Name, ErrNotAllowed)
}

// decided reports whether the request has been approved, denied or signed, or has failed.
func decided(csr *certificatesv1.CertificateSigningRequest) bool {
	return len(csr.Status.Certificate) > 0 || slices.ContainsFunc(csr.Status.Conditions, func(c certificatesv1.CertificateSigningRequestCondition) bool {
		return c.Type == certificatesv1.CertificateApproved || c.Type == certificatesv1.CertificateDenied || c.Type == certificatesv1.CertificateFailed
	})
}

// isNode reports whether the request is for the client certificate of a node and nothing more.
func isNode(request *x509.CertificateRequest, usages []certificatesv1.KeyUsage) bool {
	return subject(request) != "" && len(request.DNSNames)+len(request.IPAddresses) == 0 && hasUsages(usages, certificatesv1.UsageClientAuth)
}

// isServing reports whether the request is for a certificate by which the requesting node serves as itself and as
// nothing else. Clients identify the server by its names and addresses alone, so a node may have none of these, nor a
// name other than its own. Loopback addresses identify no machine.
func isServing(request *x509.CertificateRequest, csr *certificatesv1.CertificateSigningRequest, taken Taken) bool {
	node := subject(request)
	asks, ok := nodeaccess.Identify(csr.Spec.Username, csr.Spec.Groups)
	if node == "" || !ok || asks != node || !hasUsages(csr.Spec.Usages, certificatesv1.UsageServerAuth) {
		return false
	}
	for _, name := range request.DNSNames {
		if name != node || taken(name) {
			return false
		}
	}
	for _, ip := range request.IPAddresses {
		if ip.IsUnspecified() || ip.IsMulticast() || !ip.IsLoopback() && taken(ip.String()) {
			return false
		}
	}
	return len(request.DNSNames)+len(request.IPAddresses) > 0
}

// subject returns the node that a request names; "" if it names none, or has anything else in its subject. A name must
// be valid for a Node: as a DNS name, "*.example.com" would be the name of every machine of the domain, including the
// server.
func subject(request *x509.CertificateRequest) string {
	name, ok := nodeaccess.Identify(request.Subject.CommonName, request.Subject.Organization)
	if !ok || len(request.Subject.Organization) != 1 || len(request.EmailAddresses)+len(request.URIs) > 0 || len(validation.IsDNS1123Subdomain(name)) > 0 {
		return ""
	}
	return name
}

func hasUsages(usages []certificatesv1.KeyUsage, purpose certificatesv1.KeyUsage) bool {
	least := sets.New(certificatesv1.UsageDigitalSignature, purpose)
	asked := sets.New(usages...)
	// RSA keys may also encipher other keys.
	return asked.Equal(least) || asked.Equal(least.Insert(certificatesv1.UsageKeyEncipherment))
}

// permissions returns the permissions of which one is enough for a client certificate, the narrower first.
func permissions(request *x509.CertificateRequest, csr *certificatesv1.CertificateSigningRequest) []permission {
	anyNode := permission{"nodeclient", "Auto approving kubelet client certificate after SubjectAccessReview."}
	if csr.Spec.Username != request.Subject.CommonName {
		return []permission{anyNode}
	}
	return []permission{{"selfnodeclient", "Auto approving self kubelet client certificate after SubjectAccessReview."}, anyNode}
}

func allows(ctx context.Context, az authorizer.UnconditionalAuthorizer, csr *certificatesv1.CertificateSigningRequest, subresource string) (bool, error) {
	who := &user.DefaultInfo{Name: csr.Spec.Username, UID: csr.Spec.UID, Groups: csr.Spec.Groups, Extra: map[string][]string{}}
	for key, values := range csr.Spec.Extra {
		who.Extra[key] = values
	}
	decision, _, err := az.Authorize(ctx, authorizer.AttributesRecord{
		User: who, Verb: "create", APIGroup: certificatesv1.GroupName, APIVersion: "*",
		Resource: "certificatesigningrequests", Subresource: subresource, ResourceRequest: true,
	})
	return err == nil && decision == authorizer.DecisionAllow, err
}
