package pki

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"iter"

	"lanyard.dev/internal/files"
)

// Types of PEM blocks (RFC 7468).
const (
	certificateBlock = "CERTIFICATE"
	keyBlock         = "EC PRIVATE KEY"
	requestBlock     = "CERTIFICATE REQUEST"
)

// MaxRequest is the limit for a certificate request in PEM, in bytes. A request with an RSA key of 16384 bits and a
// hundred names is far smaller.
const MaxRequest = 64 << 10

var (
	// ErrRequestType reports that the first block of a text is not a certificate request.
	ErrRequestType = errors.New("PEM block type must be CERTIFICATE REQUEST")

	errNoCertificate = errors.New("it contains no certificate")
)

// Blocks yields the PEM blocks of data. It skips the text around them and blocks that are damaged, as Kubernetes does.
func Blocks(data []byte) iter.Seq[*pem.Block] {
	return func(yield func(*pem.Block) bool) {
		for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
			if !yield(block) {
				return
			}
		}
	}
}

// firstBlock returns the content of the first PEM block of data, if it is of that type.
func firstBlock(data []byte, kind string) (der []byte, ok bool) {
	for block := range Blocks(data) {
		return block.Bytes, block.Type == kind
	}
	return nil, false
}

// ParseRequest reads a PKCS#10 certificate request (RFC 2986) in PEM and verifies its signature, which proves that the
// requester holds the private key. What follows the first block is ignored, as in Kubernetes.
func ParseRequest(data []byte) (*x509.CertificateRequest, error) {
	if len(data) > MaxRequest {
		return nil, fmt.Errorf("must be at most %d bytes", MaxRequest)
	}
	der, ok := firstBlock(data, requestBlock)
	if !ok {
		return nil, ErrRequestType
	}
	request, err := x509.ParseCertificateRequest(der)
	if err != nil {
		return nil, err
	}
	if err := request.CheckSignature(); err != nil {
		return nil, err
	}
	return request, nil
}

// ParseChain reads one or more certificates in PEM. A block of another type is an error.
func ParseChain(data []byte) ([]*x509.Certificate, error) {
	var chain []*x509.Certificate
	for block := range Blocks(data) {
		if block.Type != certificateBlock {
			return nil, fmt.Errorf("only CERTIFICATE PEM blocks are allowed, found %q", block.Type)
		}
		if len(block.Headers) > 0 {
			return nil, errors.New("no PEM block headers are permitted")
		}
		certs, err := x509.ParseCertificates(block.Bytes)
		if err != nil {
			return nil, err
		}
		if len(certs) == 0 {
			return nil, errors.New("found CERTIFICATE PEM block containing 0 certificates")
		}
		chain = append(chain, certs...)
	}
	if len(chain) == 0 {
		return nil, errors.New("must contain at least one CERTIFICATE PEM block")
	}
	return chain, nil
}

// ReadPublic returns the certificates of a PEM file, in PEM. Everything else in the file, such as a private key, is left
// out.
func ReadPublic(file string) ([]byte, error) {
	data, err := files.Read(file, files.MaxPEM)
	if err != nil {
		return nil, err
	}
	var public []byte
	for block := range Blocks(data) {
		if block.Type != certificateBlock || len(block.Headers) > 0 {
			continue
		}
		certs, err := x509.ParseCertificates(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		for _, cert := range certs {
			public = append(public, encodeCertificate(cert.Raw)...)
		}
	}
	if len(public) == 0 {
		return nil, fmt.Errorf("%s: %w", file, errNoCertificate)
	}
	return public, nil
}

// ParseRoots returns a pool of the certificates in data, which is PEM. A certificate that package x509 cannot parse is
// skipped, because the bundles of some operating systems contain such.
func ParseRoots(data []byte) (*x509.CertPool, error) {
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(data) {
		return nil, errNoCertificate
	}
	return roots, nil
}

// ReadRoots is ParseRoots for a file. Errors name the file.
func ReadRoots(file string) (*x509.CertPool, error) {
	data, err := files.Read(file, files.MaxPEM)
	if err != nil {
		return nil, err
	}
	roots, err := ParseRoots(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return roots, nil
}

// ReadKeyPair is tls.LoadX509KeyPair for files of limited size: a certificate, with its chain if it has one, and its key
// of any kind that TLS knows.
func ReadKeyPair(certFile, keyFile string) (tls.Certificate, error) {
	cert, err := files.Read(certFile, files.MaxPEM)
	if err != nil {
		return tls.Certificate{}, err
	}
	key, err := files.Read(keyFile, files.MaxPEM)
	if err != nil {
		return tls.Certificate{}, err
	}
	return tls.X509KeyPair(cert, key)
}

func encodeCertificate(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: certificateBlock, Bytes: der})
}
