package pki

import (
	"bytes"
	"crypto/x509"
	"crypto/x509/pkix"
	"net"
	"slices"
	"strings"
	"time"
)

// Names is what a serving certificate vouches for.
type Names struct {
	DNS []string
	IPs []net.IP
}

// ServingNames returns the names under which clients reach an API server on
// this machine: localhost, the in-cluster names of the kubernetes service,
// hostname, and address unless it is empty, unspecified (0.0.0.0, ::) or
// already among them. Address is an IP address or a DNS name.
func ServingNames(hostname, address string) Names {
	names := Names{
		DNS: []string{
			"localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc",
			"kubernetes.default.svc.cluster.local",
		},
		IPs: []net.IP{net.IPv4(127, 0, 0, 1).To4(), net.IPv6loopback},
	}
	names.add(hostname)
	names.add(address)
	return names
}

func (n *Names) add(name string) {
	ip := net.ParseIP(name)
	switch {
	case name == "" || !ascii(name) || (ip != nil && ip.IsUnspecified()):
	case ip == nil && !slices.Contains(n.DNS, name):
		n.DNS = append(n.DNS, name)
	case ip != nil && !slices.ContainsFunc(n.IPs, ip.Equal):
		n.IPs = append(n.IPs, ip)
	}
}

// ascii tells whether x509 can encode name; some hosts are named otherwise.
func ascii(name string) bool {
	return !strings.ContainsFunc(name, func(r rune) bool { return r <= ' ' || r > '~' })
}

// coveredBy tells whether cert vouches for all of n.
func (n Names) coveredBy(cert *x509.Certificate) bool {
	for _, name := range n.DNS {
		if !slices.Contains(cert.DNSNames, name) {
			return false
		}
	}
	for _, ip := range n.IPs {
		if !slices.ContainsFunc(cert.IPAddresses, ip.Equal) {
			return false
		}
	}
	return true
}

// EnsureServing returns the serving certificate in the two files. It is
// derived from the CA, so it is made anew when it is missing or damaged, was
// signed by another CA, does not cover names, or has less than a third of its
// life left.
func (a *Authority) EnsureServing(certFile, keyFile string, names Names, now time.Time) (*Pair, error) {
	return a.ensure(certFile, keyFile, now, names.coveredBy, func() (*Pair, error) {
		return a.NewServing(names, now)
	})
}

// EnsureClient is EnsureServing for a client certificate; it is also made
// anew when the subject differs.
func (a *Authority) EnsureClient(certFile, keyFile, name string, groups []string, now time.Time) (*Pair, error) {
	same := func(cert *x509.Certificate) bool {
		return cert.Subject.CommonName == name && sameSet(cert.Subject.Organization, groups)
	}
	return a.ensure(certFile, keyFile, now, same, func() (*Pair, error) {
		return a.NewClient(name, groups, now)
	})
}

// sameSet compares without order: DER sorts the values of a set.
func sameSet(a, b []string) bool {
	return slices.Equal(slices.Sorted(slices.Values(a)), slices.Sorted(slices.Values(b)))
}

func (a *Authority) ensure(certFile, keyFile string, now time.Time, fits func(*x509.Certificate) bool, create func() (*Pair, error)) (*Pair, error) {
	pair, err := loadPair(certFile, keyFile)
	if err == nil && a.signed(pair.cert) && !pair.cert.NotBefore.Before(a.earliest) && fresh(pair.cert, now) && fits(pair.cert) {
		return pair, nil
	}
	if pair, err = create(); err != nil {
		return nil, err
	}
	return pair, pair.write(certFile, keyFile)
}

func (a *Authority) signed(cert *x509.Certificate) bool {
	return bytes.Equal(cert.RawIssuer, a.pair.cert.RawSubject) && cert.CheckSignatureFrom(a.pair.cert) == nil
}

// fresh tells whether at least a third of cert's life is left.
func fresh(cert *x509.Certificate, now time.Time) bool {
	life := cert.NotAfter.Sub(cert.NotBefore)
	return !now.Before(cert.NotBefore) && cert.NotAfter.Sub(now) >= life/3
}

// EnsureNodeServing is EnsureServing for the agent of a node, which is reached under addresses and known by name and
// groups.
func (a *Authority) EnsureNodeServing(certFile, keyFile, name string, groups []string, addresses Names, now time.Time) (*Pair, error) {
	fits := func(cert *x509.Certificate) bool {
		return cert.Subject.CommonName == name && sameSet(cert.Subject.Organization, groups) && addresses.coveredBy(cert)
	}
	return a.ensure(certFile, keyFile, now, fits, func() (*Pair, error) {
		return a.newServing(subjectOf(name, groups), addresses, now)
	})
}

// NewServing makes a certificate for a TLS server, valid for one year, but no
// longer than the CA.
func (a *Authority) NewServing(names Names, now time.Time) (*Pair, error) {
	return a.newServing(pkix.Name{CommonName: "lanyard-serving"}, names, now)
}

func (a *Authority) newServing(subject pkix.Name, names Names, now time.Time) (*Pair, error) {
	template, err := newTemplate(subject, leafLife, now)
	if err != nil {
		return nil, err
	}
	template.KeyUsage = x509.KeyUsageDigitalSignature
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	template.DNSNames, template.IPAddresses = names.DNS, names.IPs
	return a.sign(template)
}

// NewClient makes a certificate for a TLS client, valid for one year, but no
// longer than the CA. Kubernetes reads name as the user and groups as its
// groups.
func (a *Authority) NewClient(name string, groups []string, now time.Time) (*Pair, error) {
	template, err := newTemplate(subjectOf(name, groups), leafLife, now)
	if err != nil {
		return nil, err
	}
	template.KeyUsage = x509.KeyUsageDigitalSignature
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	return a.sign(template)
}

// subjectOf is how a certificate names a user and its groups.
func subjectOf(name string, groups []string) pkix.Name {
	return pkix.Name{CommonName: name, Organization: groups}
}
