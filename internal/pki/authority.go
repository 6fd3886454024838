package pki

import (
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"math/big"
	"time"

	"lanyard.dev/internal/files"
)

const (
	authorityLife = 10 * 365 * 24 * time.Hour
	leafLife      = 365 * 24 * time.Hour

	// backdate lets clients whose clocks are a little behind accept a
	// certificate that was just made.
	backdate = 5 * time.Minute
)

// Authority is a CA that signs serving and client certificates.
type Authority struct {
	pair *Pair
	// earliest is from when on certificates are valid at the earliest; zero leaves it at the usual backdating.
	earliest time.Time
}

// EnsureAuthority loads the CA from the two files. If neither exists it makes
// one called name, valid for ten years from now; if only the key does, as
// after a start that was killed between the two, it completes it. A file that
// is corrupt, expired or of another pair is reported, never replaced.
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

// lostKey is called when there is a certificate, but err if it is unreadable.
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

// keyID identifies a CA's key to those who verify; see RFC 7093, section 2.
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

// From returns the same CA, whose certificates are valid from earliest on and no sooner: those of before are made anew.
func (a *Authority) From(earliest time.Time) *Authority {
	return &Authority{pair: a.pair, earliest: earliest}
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b.UTC()
	}
	return a
}

// Certificate returns the CA's parsed certificate, which must not be changed.
func (a *Authority) Certificate() *x509.Certificate { return a.pair.cert }

// CertPEM returns the CA's certificate, which must not be changed.
func (a *Authority) CertPEM() []byte { return a.pair.CertPEM }

// sign completes template with a new key and a signature.
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
		NotBefore:    now.Add(-backdate).UTC(),
		NotAfter:     now.Add(life).UTC(),
	}, nil
}
