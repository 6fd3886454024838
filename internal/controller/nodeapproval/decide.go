package nodeapproval

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"

	"lanyard.dev/internal/nodeaccess"
	"lanyard.dev/internal/pki"
)

// ErrNotAllowed says that a request is one for a node's certificate, and its requester may not have it approved now.
var ErrNotAllowed = errors.New("recognized as a node's request, but policy does not allow its requester to have it approved")

// permission is what lets a requester have a kind of request approved.
type permission struct{ subresource, message string }

// Taken tells whether the authority itself is known under a name or address.
type Taken func(name string) bool

// Decide returns the condition that approves csr, or nil where that is not for this package to do: the request is
// decided already, or is not one for a node's certificate, for a client or to serve with at a name that is free. An error
// other than ErrNotAllowed means that nothing is known. The requester is the one the server wrote into spec when csr was
// created.
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

// decided tells whether someone has approved or denied it, or it has failed or been signed.
func decided(csr *certificatesv1.CertificateSigningRequest) bool {
	return len(csr.Status.Certificate) > 0 || slices.ContainsFunc(csr.Status.Conditions, func(c certificatesv1.CertificateSigningRequestCondition) bool {
		return c.Type == certificatesv1.CertificateApproved || c.Type == certificatesv1.CertificateDenied || c.Type == certificatesv1.CertificateFailed
	})
}

// isNode tells whether the certificate would be a node's, for a client, and nothing more.
func isNode(request *x509.CertificateRequest, usages []certificatesv1.KeyUsage) bool {
	return subject(request) != "" && len(request.DNSNames)+len(request.IPAddresses) == 0 && hasUsages(usages, certificatesv1.UsageClientAuth)
}

// isServing tells whether the certificate would let the node that asks serve as itself, and as nothing else. Clients know
// the authority by its names and addresses alone, so one that is the authority's is not for a node to have; nor is a name
// that is not the node's own. Loopback is nobody's.
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

// subject is the node that a request names, with nothing else about it; "" if it names none. A name that no Node can have
// is none: as a DNS name, "*.example.com" would be that of every machine of the domain, the authority's among them.
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
	// Keys of RSA may also encipher other keys.
	return asked.Equal(least) || asked.Equal(least.Insert(certificatesv1.UsageKeyEncipherment))
}

// permissions are those that would do for a client's certificate, the narrower first.
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
