package pki

import (
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"time"
)

// Signer is a CA that signs certificate requests. Unlike the key of an Authority, its key may be of any type that TLS supports.
type Signer struct {
	cert *x509.Certificate
	key  crypto.Signer
}

// Terms are the properties of a certificate that the signer decides.
type Terms struct {
	// Life is how long the certificate is valid from now on, but no longer than the CA. The certificate is also valid for some
	// minutes before now. Kubernetes subtracts these from long lives, which then are shorter than requested.
	Life        time.Duration
	KeyUsage    x509.KeyUsage
	ExtKeyUsage []x509.ExtKeyUsage
	// NotBefore is the earliest start of validity; zero means Backdate before now.
	NotBefore time.Time
}

// LoadSigner reads a CA certificate, with its chain if it has one, and its key.
func LoadSigner(certFile, keyFile string) (*Signer, error) {
	pair, err := ReadKeyPair(certFile, keyFile)
	if err != nil {
		return nil, fmt.Errorf("signing CA %s with key %s: %w", certFile, keyFile, err)
	}
	key, ok := pair.PrivateKey.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("key of the signing CA %s: it cannot sign", keyFile)
	}
	if !pair.Leaf.IsCA || !pair.Leaf.BasicConstraintsValid {
		return nil, fmt.Errorf("signing CA %s: it is not a CA certificate", certFile)
	}
	return &Signer{cert: pair.Leaf, key: key}, nil
}

// Sign returns a certificate in PEM with the subject, alternative names and key of the request. Other extensions of the
// request are dropped. The caller has verified the signature of the request.
func (s *Signer) Sign(request *x509.CertificateRequest, terms Terms, now time.Time) ([]byte, error) {
	if !now.Before(s.cert.NotAfter) {
		return nil, fmt.Errorf("the signing CA expired at %s", s.cert.NotAfter.UTC().Format(time.RFC3339))
	}
	template, err := newTemplate(request.Subject, terms.Life, now)
	if err != nil {
		return nil, err
	}
	template.RawSubject = request.RawSubject
	template.DNSNames, template.IPAddresses = request.DNSNames, request.IPAddresses
	template.EmailAddresses, template.URIs = request.EmailAddresses, request.URIs
	template.KeyUsage, template.ExtKeyUsage = terms.KeyUsage, terms.ExtKeyUsage
	template.BasicConstraintsValid = true
	template.NotBefore = later(template.NotBefore, terms.NotBefore)
	if template.NotAfter.After(s.cert.NotAfter) {
		template.NotAfter = s.cert.NotAfter
	}
	if request.PublicKey == nil {
		return nil, errors.New("the request's kind of key is not known")
	}
	der, err := x509.CreateCertificate(rand.Reader, template, s.cert, request.PublicKey, s.key)
	if err != nil {
		return nil, fmt.Errorf("sign the certificate of %s: %w", request.Subject.CommonName, err)
	}
	return encodeCertificate(der), nil
}

// NewRequest returns a new key and a certificate request for it, both in PEM. For Kubernetes, name is the user and groups are
// its groups.
func NewRequest(name string, groups []string) (keyPEM, requestPEM []byte, err error) {
	key, err := newKey()
	if err != nil {
		return nil, nil, err
	}
	keyDER, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return nil, nil, fmt.Errorf("encode a private key: %w", err)
	}
	template := &x509.CertificateRequest{Subject: subjectOf(name, groups)}
	der, err := x509.CreateCertificateRequest(rand.Reader, template, key)
	if err != nil {
		return nil, nil, fmt.Errorf("make a certificate request for %s: %w", name, err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: keyBlock, Bytes: keyDER}),
		pem.EncodeToMemory(&pem.Block{Type: requestBlock, Bytes: der}), nil
}
