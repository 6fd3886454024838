package pki

import (
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
)

const requestBlock = "CERTIFICATE REQUEST"

// MaxRequest bounds a certificate request in PEM: one with an RSA key of 16384 bits and a hundred names is well below.
const MaxRequest = 64 << 10

// ErrRequestType says that PEM text begins with something else than a certificate request, or is none.
var ErrRequestType = errors.New("PEM block type must be CERTIFICATE REQUEST")

// ParseRequest reads a PKCS#10 certificate request (RFC 2986) in PEM and verifies its signature, which proves that the
// requester holds the private key. What follows the first block is ignored, as in Kubernetes.
func ParseRequest(data []byte) (*x509.CertificateRequest, error) {
	if len(data) > MaxRequest {
		return nil, fmt.Errorf("must be at most %d bytes", MaxRequest)
	}
	block, _ := pem.Decode(data)
	if block == nil || block.Type != requestBlock {
		return nil, ErrRequestType
	}
	request, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		return nil, err
	}
	if err := request.CheckSignature(); err != nil {
		return nil, err
	}
	return request, nil
}

// CheckChain returns why data is not one or more certificates in PEM and nothing else.
func CheckChain(data []byte) error {
	_, err := ParseChain(data)
	return err
}

// ParseChain reads one or more certificates in PEM.
func ParseChain(data []byte) ([]*x509.Certificate, error) {
	var chain []*x509.Certificate
	for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
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
