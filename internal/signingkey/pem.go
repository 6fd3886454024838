package signingkey

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"

	"lanyard.dev/internal/files"
	"lanyard.dev/internal/pki"
)

const (
	// MaxFileSize is the limit for a key file and for a JWKS, in bytes.
	MaxFileSize = 1 << 20
	// MaxKeys is the limit for the keys of a Set and of a file. A token without kid is verified with every key in turn.
	MaxKeys = 100
)

// Reasons why a key file is refused.
var (
	ErrTooLarge     = fmt.Errorf("larger than %d bytes", MaxFileSize)
	ErrTooManyKeys  = fmt.Errorf("more than %d keys", MaxKeys)
	ErrNoKey        = errors.New("no usable key")
	ErrNotPEM       = errors.New("not valid PEM")
	ErrEncryptedKey = errors.New("encrypted private keys are not supported: decrypt it first, for example with openssl pkey")
)

// ParsePrivatePEM returns the private key in data, in PKCS#8, SEC1 or PKCS#1. Public keys, certificates and EC PARAMETERS
// are skipped. Several private keys are an error, since any of them could be the one to sign with.
func ParsePrivatePEM(data []byte) (*PrivateKey, error) {
	parsed, err := parsePEM(data)
	if err != nil {
		return nil, err
	}
	var found *PrivateKey
	for _, p := range parsed {
		if p.private == nil {
			continue
		}
		if found != nil {
			return nil, errors.New("more than one private key")
		}
		found = p.private
	}
	if found == nil {
		return nil, fmt.Errorf("%w: no private key", ErrNoKey)
	}
	return found, nil
}

// ParsePublicPEM returns every key in data, in order and without duplicates: PKIX and PKCS#1 public keys, the keys of
// certificates, and the public halves of private keys. A block that it cannot use is an error. If it were skipped, that
// would be noticed only when the tokens of the key are refused.
func ParsePublicPEM(data []byte) ([]PublicKey, error) {
	parsed, err := parsePEM(data)
	if err != nil {
		return nil, err
	}
	var keys []PublicKey
	for _, p := range parsed {
		if !contains(keys, p.public) {
			keys = append(keys, p.public)
		}
	}
	if len(keys) == 0 {
		return nil, ErrNoKey
	}
	return keys, nil
}

// MarshalPEM returns the key as a PKCS#8 PEM block. The result is a secret.
func (k *PrivateKey) MarshalPEM() ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(k.signer)
	if err != nil {
		return nil, fmt.Errorf("marshal key %s: %w", k.ID(), err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}

// MarshalPEM returns the key as a PKIX PEM block.
func (k PublicKey) MarshalPEM() ([]byte, error) {
	der, err := x509.MarshalPKIXPublicKey(k.key)
	if err != nil {
		return nil, fmt.Errorf("marshal key %s: %w", k.id, err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}), nil
}

// parsedKey is the key of a PEM block. private is nil for a public key.
type parsedKey struct {
	private *PrivateKey
	public  PublicKey
}

func parsePEM(data []byte) ([]parsedKey, error) {
	if len(data) > MaxFileSize {
		return nil, ErrTooLarge
	}
	blocks, err := pemBlocks(data)
	if err != nil {
		return nil, err
	}
	keys := make([]parsedKey, 0, len(blocks))
	for i, block := range blocks {
		if block.Type == "EC PARAMETERS" { // openssl ecparam writes it before the key
			continue
		}
		key, err := parseBlock(block)
		if err != nil {
			return nil, fmt.Errorf("PEM block %d: %w", i+1, err)
		}
		keys = append(keys, key)
	}
	return keys, nil
}

// pemBlocks returns all blocks of data. It refuses a damaged block, which pki.Blocks skips.
func pemBlocks(data []byte) ([]*pem.Block, error) {
	begins := bytes.Count(data, []byte("\n-----BEGIN "))
	if bytes.HasPrefix(data, []byte("-----BEGIN ")) {
		begins++
	}
	if begins > 2*MaxKeys { // each key may be preceded by its EC PARAMETERS
		return nil, ErrTooManyKeys
	}
	var blocks []*pem.Block
	for block := range pki.Blocks(data) {
		blocks = append(blocks, block)
	}
	if len(blocks) != begins {
		return nil, ErrNotPEM
	}
	if len(blocks) == 0 {
		return nil, fmt.Errorf("%w: no block in it", ErrNotPEM)
	}
	return blocks, nil
}

// parseBlock returns the key of a block. Its errors do not include errors of package x509, which could contain key material.
func parseBlock(block *pem.Block) (parsedKey, error) {
	if block.Type == "ENCRYPTED PRIVATE KEY" || strings.Contains(block.Headers["Proc-Type"], "ENCRYPTED") {
		return parsedKey{}, ErrEncryptedKey
	}
	key, err := parseDER(block.Type, block.Bytes)
	if err != nil {
		return parsedKey{}, err
	}
	if signer, ok := key.(crypto.Signer); ok {
		private, err := NewPrivateKey(signer)
		if err != nil {
			return parsedKey{}, err
		}
		return parsedKey{private: private, public: private.public}, nil
	}
	public, err := NewPublicKey(key)
	return parsedKey{public: public}, err
}

func parseDER(kind string, der []byte) (any, error) {
	var key any
	var err error
	switch kind {
	case "PRIVATE KEY":
		key, err = x509.ParsePKCS8PrivateKey(der)
	case "EC PRIVATE KEY":
		key, err = x509.ParseECPrivateKey(der)
	case "RSA PRIVATE KEY":
		key, err = x509.ParsePKCS1PrivateKey(der)
	case "PUBLIC KEY":
		key, err = x509.ParsePKIXPublicKey(der)
	case "RSA PUBLIC KEY":
		key, err = x509.ParsePKCS1PublicKey(der)
	case "CERTIFICATE":
		var cert *x509.Certificate
		if cert, err = x509.ParseCertificate(der); err == nil {
			key = cert.PublicKey
		}
	default:
		return nil, errors.New("not a private key, public key or certificate")
	}
	if err != nil {
		return nil, fmt.Errorf("does not hold the %s it announces", strings.ToLower(kind))
	}
	return key, nil
}

func contains(keys []PublicKey, key PublicKey) bool {
	for _, k := range keys {
		if k.id == key.id && k.thumbprint == key.thumbprint {
			return true
		}
	}
	return false
}

// LoadPrivate is ParsePrivatePEM for a file. The error names the file, and is fs.ErrNotExist if the file is missing.
func LoadPrivate(path string) (*PrivateKey, error) {
	data, err := files.Read(path, MaxFileSize)
	if err != nil {
		return nil, fmt.Errorf("load signing key: %w", err)
	}
	key, err := ParsePrivatePEM(data)
	if err != nil {
		return nil, fmt.Errorf("load signing key: %s: %w", path, err)
	}
	return key, nil
}

// LoadPublic is ParsePublicPEM for a file. The error names the file.
func LoadPublic(path string) ([]PublicKey, error) {
	data, err := files.Read(path, MaxFileSize)
	if err != nil {
		return nil, fmt.Errorf("load public keys: %w", err)
	}
	keys, err := ParsePublicPEM(data)
	if err != nil {
		return nil, fmt.Errorf("load public keys: %s: %w", path, err)
	}
	return keys, nil
}
