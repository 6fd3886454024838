package pki

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"lanyard.dev/internal/files"
)

const restore = "restore the file from a backup"

// Pair is a certificate with its private key, in PEM.
type Pair struct {
	CertPEM, KeyPEM []byte

	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// Certificate returns the certificate. The caller must not change it.
func (p *Pair) Certificate() *x509.Certificate { return p.cert }

func newKey() (*ecdsa.PrivateKey, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make a private key: %w", err)
	}
	return key, nil
}

func newPair(der []byte, key *ecdsa.PrivateKey) (*Pair, error) {
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("read back a new certificate: %w", err)
	}
	keyDER, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("encode a private key: %w", err)
	}
	return &Pair{
		CertPEM: encodeCertificate(der),
		KeyPEM:  pem.EncodeToMemory(&pem.Block{Type: keyBlock, Bytes: keyDER}),
		cert:    cert,
		key:     key,
	}, nil
}

// write writes the key first: a new certificate can be made for a key, but not a key for a certificate.
func (p *Pair) write(certFile, keyFile string) error {
	if err := writeFile(keyFile, p.KeyPEM, 0o600); err != nil {
		return err
	}
	return writeFile(certFile, p.CertPEM, 0o644)
}

func writeFile(path string, data []byte, mode fs.FileMode) error {
	if err := files.Write(path, data, mode); err != nil {
		return files.Unusable(path, "cannot be written", err, "make room or give this user write access, then start again")
	}
	return nil
}

// loadPair reads both files. The error is fs.ErrNotExist if one of them is missing.
func loadPair(certFile, keyFile string) (*Pair, error) {
	cert, certPEM, err := loadCertificate(certFile)
	if err != nil {
		return nil, err
	}
	key, keyPEM, err := loadKey(keyFile)
	if err != nil {
		return nil, err
	}
	if public, ok := cert.PublicKey.(*ecdsa.PublicKey); !ok || !public.Equal(&key.PublicKey) {
		return nil, files.Unusable(keyFile, "is not the key of the certificate in "+certFile, nil,
			"restore both files from the same backup")
	}
	return &Pair{CertPEM: certPEM, KeyPEM: keyPEM, cert: cert, key: key}, nil
}

func loadCertificate(file string) (*x509.Certificate, []byte, error) {
	data, block, err := readBlock(file, certificateBlock)
	if err != nil {
		return nil, nil, err
	}
	cert, err := x509.ParseCertificate(block)
	if err != nil {
		return nil, nil, files.Unusable(file, "holds no valid certificate", nil, restore)
	}
	return cert, data, nil
}

func loadKey(file string) (*ecdsa.PrivateKey, []byte, error) {
	data, block, err := readBlock(file, keyBlock)
	if err != nil {
		return nil, nil, err
	}
	key, err := x509.ParseECPrivateKey(block)
	if err != nil {
		return nil, nil, files.Unusable(file, "holds no valid private key", nil, restore)
	}
	return key, data, nil
}

// readBlock returns a file and the content of its first PEM block, which must be of that type.
func readBlock(file, kind string) (data, block []byte, err error) {
	info, err := os.Stat(file)
	if err == nil && !info.Mode().IsRegular() {
		return nil, nil, files.Unusable(file, "is not a PEM file", nil, restore)
	}
	data, err = files.Read(file, files.MaxPEM)
	switch {
	case errors.Is(err, files.ErrTooLarge):
		return nil, nil, files.Unusable(file, "is not a PEM file", nil, restore)
	case err != nil:
		return nil, nil, files.Unusable(file, "cannot be read", err, "check that it exists and that this user may read it")
	}
	block, ok := firstBlock(data, kind)
	if !ok {
		return nil, nil, files.Unusable(file, fmt.Sprintf("is corrupt: it holds no PEM block %q", kind), nil, restore)
	}
	return data, block, nil
}

// absent reports whether err means that a file does not exist.
func absent(err error) bool { return errors.Is(err, fs.ErrNotExist) }
