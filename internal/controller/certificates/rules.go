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

// rule says why a signer refuses a request.
type rule func(r *x509.CertificateRequest, usages []certificatesv1.KeyUsage) error

// ruleOf returns the rule of a signer that this controller signs for, or nil.
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

// Signs tells whether the controller signs for a signer, given a CA.
func Signs(signerName string) bool { return ruleOf(signerName) != nil }

// client is for anybody who may call the API. Membership in system:masters is refused at the door already; it is looked
// at again because nothing could take it back.
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

// node is for nodes: a certificate that says nothing but which node it is.
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

// nodeServing is for the agents of nodes: which node it is, and where it is reached.
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

// nodeSubject holds a request to the name of a node.
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

// nodeUsages takes the first two of all, with key encipherment or without: only RSA keys have a use for it.
func nodeUsages(usages, all []certificatesv1.KeyUsage) bool {
	for _, usage := range usages {
		if !slices.Contains(all, usage) {
			return false
		}
	}
	return slices.Contains(usages, all[0]) && slices.Contains(usages, all[1])
}

// bits are the usages as X.509 writes them, some in one extension, some in another. The rules let no others through.
func bits(usages []certificatesv1.KeyUsage) (x509.KeyUsage, []x509.ExtKeyUsage) {
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
