package certificates

import (
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strings"

	certificatesv1 "k8s.io/api/certificates/v1"
	"k8s.io/apiserver/pkg/authentication/user"
)

const nodePrefix = "system:node:"

// rule returns the reason why a signer refuses a request, or nil.
type rule func(r *x509.CertificateRequest, usages []certificatesv1.KeyUsage) error

// ruleOf returns the rule of a signer that the controller signs for; nil for any other signer.
func ruleOf(signerName string) rule {
	switch signerName {
	case certificatesv1.KubeAPIServerClientSignerName:
		return client
	case certificatesv1.KubeAPIServerClientKubeletSignerName:
		return node
	case certificatesv1.KubeletServingSignerName:
		return nodeServing
	}
	return nil
}

// Signs reports whether the controller signs for a signer if it has a CA.
func Signs(signerName string) bool { return ruleOf(signerName) != nil }

// client is the rule for any client of the API. Admission refuses membership in system:masters when the request is
// created. It is checked again, because such a certificate could not be revoked.
func client(r *x509.CertificateRequest, usages []certificatesv1.KeyUsage) error {
	if slices.Contains(r.Subject.Organization, user.SystemPrivilegedGroup) {
		return fmt.Errorf("subject organization %s is not allowed", user.SystemPrivilegedGroup)
	}
	for _, usage := range usages {
		if !slices.Contains(clientUsages, usage) {
			return fmt.Errorf("invalid usage for client certificate: %s", usage)
		}
	}
	if !slices.Contains(usages, certificatesv1.UsageClientAuth) {
		return fmt.Errorf("missing required usage for client certificate: %s", certificatesv1.UsageClientAuth)
	}
	return nil
}

var clientUsages = []certificatesv1.KeyUsage{
	certificatesv1.UsageClientAuth, certificatesv1.UsageDigitalSignature, certificatesv1.UsageKeyEncipherment,
}

// node is the rule for the client certificate of a node, which holds nothing but the name of the node.
func node(r *x509.CertificateRequest, usages []certificatesv1.KeyUsage) error {
	if err := nodeSubject(r); err != nil {
		return err
	}
	switch {
	case len(r.DNSNames) > 0:
		return errors.New("DNS subjectAltNames are not allowed")
	case len(r.IPAddresses) > 0:
		return errors.New("IP subjectAltNames are not allowed")
	case !nodeUsages(usages, clientUsages):
		return fmt.Errorf("usages did not match %v", clientUsages)
	}
	return nil
}

// nodeServing is the rule for the serving certificate of a node, which holds its name and its addresses.
func nodeServing(r *x509.CertificateRequest, usages []certificatesv1.KeyUsage) error {
	if err := nodeSubject(r); err != nil {
		return err
	}
	switch {
	case len(r.DNSNames) == 0 && len(r.IPAddresses) == 0:
		return errors.New("DNS or IP subjectAltName is required")
	case !nodeUsages(usages, servingUsages):
		return fmt.Errorf("usages did not match %v", servingUsages)
	}
	return nil
}

// nodeSubject requires the name of a node as the subject.
func nodeSubject(r *x509.CertificateRequest) error {
	switch {
	case !slices.Equal(r.Subject.Organization, []string{user.NodesGroup}):
		return errors.New("subject organization is not system:nodes")
	case len(r.EmailAddresses) > 0:
		return errors.New("email subjectAltNames are not allowed")
	case len(r.URIs) > 0:
		return errors.New("URI subjectAltNames are not allowed")
	case !strings.HasPrefix(r.Subject.CommonName, nodePrefix):
		return errors.New(`subject common name does not begin with "system:node:"`)
	}
	return nil
}

var servingUsages = []certificatesv1.KeyUsage{
	certificatesv1.UsageServerAuth, certificatesv1.UsageDigitalSignature, certificatesv1.UsageKeyEncipherment,
}

// nodeUsages requires the first two usages of all. It allows key encipherment, which only RSA keys use.
func nodeUsages(usages, all []certificatesv1.KeyUsage) bool {
	for _, usage := range usages {
		if !slices.Contains(all, usage) {
			return false
		}
	}
	return slices.Contains(usages, all[0]) && slices.Contains(usages, all[1])
}

// keyUsages returns the usages as X.509 encodes them, in two extensions. The rules allow no other usages.
func keyUsages(usages []certificatesv1.KeyUsage) (x509.KeyUsage, []x509.ExtKeyUsage) {
	var usage x509.KeyUsage
	var extended []x509.ExtKeyUsage
	for _, u := range usages {
		switch u {
		case certificatesv1.UsageDigitalSignature:
			usage |= x509.KeyUsageDigitalSignature
		case certificatesv1.UsageKeyEncipherment:
			usage |= x509.KeyUsageKeyEncipherment
		case certificatesv1.UsageClientAuth:
			extended = append(extended, x509.ExtKeyUsageClientAuth)
		case certificatesv1.UsageServerAuth:
			extended = append(extended, x509.ExtKeyUsageServerAuth)
		}
	}
	return usage, extended
}
