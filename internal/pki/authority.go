package pki

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"math/big"
	"net"
	"slices"
	"strings"
	"time"

	"lanyard.dev/internal/files"
)

const (
	authorityLife = 10 * 365 * 24 * time.Hour
	leafLife      = 365 * 24 * time.Hour

	// Backdate is the age of a new certificate, so that clients whose clocks are slow accept it.
	Backdate = 5 * time.Minute
)

// Authority is a CA that signs serving and client certificates.
type Authority struct {
	pair *Pair
	// earliest is the earliest start of the validity of a certificate; zero means Backdate before now.
	earliest time.Time
}

// EnsureAuthority loads the CA from the two files. If neither exists, it makes a CA with that name, valid for ten years. If
// only the key exists, because a start was killed between writing the two, it makes the certificate. It returns an error
// about a file that is corrupt, expired or not of the pair, and does not replace it.
func EnsureAuthority(certFile, keyFile, name string, now time.Time) (*Authority, error) {
	pair, err := loadPair(certFile, keyFile)
	if err == nil {
		return usable(pair, certFile, keyFile, now)
	}
	if !absent(err) {
		return nil, err
	}
	if _, _, err := loadCertificate(certFile); !absent(err) {
		return nil, lostKey(certFile, keyFile, err)
	}
	return createAuthority(certFile, keyFile, name, now)
}

// lostKey returns the error for a certificate whose key is missing. err is the error of reading the certificate.
func lostKey(certFile, keyFile string, err error) error {
	if err != nil {
		return err
	}
	return files.Unusable(keyFile, "is missing, but its certificate "+certFile+" exists", nil,
		"restore the key from a backup, or move the certificate away to start with a new CA")
}

func createAuthority(certFile, keyFile, name string, now time.Time) (*Authority, error) {
	key, _, err := loadKey(keyFile)
	if absent(err) {
		key, err = newKey()
	}
	if err != nil {
		return nil, err
	}
	pair, err := selfSign(key, name, now)
	if err != nil {
		return nil, err
	}
	return &Authority{pair: pair}, pair.write(certFile, keyFile)
}

func selfSign(key *ecdsa.PrivateKey, name string, now time.Time) (*Pair, error) {
	template, err := newTemplate(pkix.Name{CommonName: name}, authorityLife, now)
	if err != nil {
		return nil, err
	}
	template.IsCA = true
	template.BasicConstraintsValid = true
	template.MaxPathLenZero = true
	template.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageCRLSign | x509.KeyUsageDigitalSignature
	template.SubjectKeyId, err = keyID(key)
	if err != nil {
		return nil, err
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("sign the CA certificate: %w", err)
	}
	return newPair(der, key)
}

// keyID returns the subject key identifier of a CA's key (RFC 7093, section 2).
func keyID(key *ecdsa.PrivateKey) ([]byte, error) {
	public, err := key.PublicKey.Bytes()
	if err != nil {
		return nil, fmt.Errorf("encode a public key: %w", err)
	}
	sum := sha256.Sum256(public)
	return sum[:20], nil
}

func usable(pair *Pair, certFile, keyFile string, now time.Time) (*Authority, error) {
	problem := ""
	switch {
	case !pair.cert.IsCA || !pair.cert.BasicConstraintsValid:
		problem = "is not a CA certificate"
	case now.After(pair.cert.NotAfter):
		problem = "expired at " + pair.cert.NotAfter.UTC().Format(time.RFC3339)
	case now.Before(pair.cert.NotBefore):
		problem = "is not valid before " + pair.cert.NotBefore.UTC().Format(time.RFC3339) + ", which this machine's clock has not reached"
	}
	if problem == "" {
		return &Authority{pair: pair}, nil
	}
	return nil, files.Unusable(certFile, problem, nil,
		fmt.Sprintf("check this machine's clock, or move %s and %s away and start again; clients then need the new ca.crt", certFile, keyFile))
}

// From returns the same CA with an earliest start of validity. The Ensure methods replace certificates that start earlier.
func (a *Authority) From(earliest time.Time) *Authority {
	return &Authority{pair: a.pair, earliest: earliest}
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b.UTC()
	}
	return a
}

// Certificate returns the CA's certificate. The caller must not change it.
func (a *Authority) Certificate() *x509.Certificate { return a.pair.cert }

// CertPEM returns the CA's certificate in PEM. The caller must not change it.
func (a *Authority) CertPEM() []byte { return a.pair.CertPEM }

// sign returns a certificate from the template, with a new key.
func (a *Authority) sign(template *x509.Certificate) (*Pair, error) {
	key, err := newKey()
	if err != nil {
		return nil, err
	}
	template.NotBefore = later(template.NotBefore, a.earliest)
	if template.NotAfter.After(a.pair.cert.NotAfter) {
		template.NotAfter = a.pair.cert.NotAfter
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.pair.cert, key.Public(), a.pair.key)
	if err != nil {
		return nil, fmt.Errorf("sign the certificate of %s: %w", template.Subject.CommonName, err)
	}
	return newPair(der, key)
}

func newTemplate(subject pkix.Name, life time.Duration, now time.Time) (*x509.Certificate, error) {
	// RFC 5280, section 4.1.2.2: positive, at most 20 bytes.
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 159))
	if err != nil {
		return nil, fmt.Errorf("draw a serial number: %w", err)
	}
	return &x509.Certificate{
		SerialNumber: serial.Add(serial, big.NewInt(1)),
		Subject:      subject,
		NotBefore:    now.Add(-Backdate).UTC(),
		NotAfter:     now.Add(life).UTC(),
	}, nil
}

// Names are the names and addresses in a serving certificate.
type Names struct {
	DNS []string
	IPs []net.IP
}

// ServingNames returns the names by which clients connect to an API server on this machine: localhost, the in-cluster names
// of the kubernetes service, hostname and address. address is an IP address or a DNS name; it is left out if it is empty or
// unspecified (0.0.0.0, ::).
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

// ascii reports whether package x509 can encode a name. Some hosts have other names.
func ascii(name string) bool {
	return !strings.ContainsFunc(name, func(r rune) bool { return r <= ' ' || r > '~' })
}

// coveredBy reports whether cert contains all of n.
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

// EnsureServing returns the serving certificate in the two files. It makes a new one if the certificate is missing or
// damaged, was signed by another CA, does not cover names, or has less than a third of its life left.
func (a *Authority) EnsureServing(certFile, keyFile string, names Names, now time.Time) (*Pair, error) {
	return a.ensure(certFile, keyFile, now, names.coveredBy, func() (*Pair, error) {
		return a.NewServing(names, now)
	})
}

// EnsureClient is EnsureServing for a client certificate. It also makes a new one if the subject differs.
func (a *Authority) EnsureClient(certFile, keyFile, name string, groups []string, now time.Time) (*Pair, error) {
	same := func(cert *x509.Certificate) bool {
		return cert.Subject.CommonName == name && sameSet(cert.Subject.Organization, groups)
	}
	return a.ensure(certFile, keyFile, now, same, func() (*Pair, error) {
		return a.NewClient(name, groups, now)
	})
}

// sameSet compares without order, because DER sorts the values of a set.
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

// fresh reports whether at least a third of the life of cert is left.
func fresh(cert *x509.Certificate, now time.Time) bool {
	life := cert.NotAfter.Sub(cert.NotBefore)
	return !now.Before(cert.NotBefore) && cert.NotAfter.Sub(now) >= life/3
}

// EnsureNodeServing is EnsureServing for the agent of a node. The subject has name and groups.
func (a *Authority) EnsureNodeServing(certFile, keyFile, name string, groups []string, addresses Names, now time.Time) (*Pair, error) {
	fits := func(cert *x509.Certificate) bool {
		return cert.Subject.CommonName == name && sameSet(cert.Subject.Organization, groups) && addresses.coveredBy(cert)
	}
	return a.ensure(certFile, keyFile, now, fits, func() (*Pair, error) {
		return a.newServing(subjectOf(name, groups), addresses, now)
	})
}

// NewServing returns a new certificate for a TLS server, valid for one year but no longer than the CA.
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

// NewClient returns a new certificate for a TLS client, valid for one year but no longer than the CA. For Kubernetes, name is
// the user and groups are its groups.
func (a *Authority) NewClient(name string, groups []string, now time.Time) (*Pair, error) {
	template, err := newTemplate(subjectOf(name, groups), leafLife, now)
	if err != nil {
		return nil, err
	}
	template.KeyUsage = x509.KeyUsageDigitalSignature
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	return a.sign(template)
}

// subjectOf returns the subject for a user and its groups.
func subjectOf(name string, groups []string) pkix.Name {
	return pkix.Name{CommonName: name, Organization: groups}
}
