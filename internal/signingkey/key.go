package signingkey

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	_ "crypto/sha256" // SHA-256 for crypto.Hash.New
	_ "crypto/sha512" // SHA-384 and SHA-512 for crypto.Hash.New
	"encoding/base64"
	"errors"
	"fmt"
	"math/big"

	"github.com/go-jose/go-jose/v4"
)

// Algorithm is a JWS signature algorithm name (RFC 7518 section 3.1).
type Algorithm string

// The supported algorithms. A key has one algorithm: the curve of an EC key determines it, and an RSA key has RS256.
const (
	ES256 Algorithm = "ES256"
	ES384 Algorithm = "ES384"
	ES512 Algorithm = "ES512"
	RS256 Algorithm = "RS256"

	// DefaultAlgorithm takes about a thirtieth of the time of RS256 to sign.
	DefaultAlgorithm = ES256
)

const (
	generatedRSABits = 2048
	// minRSABits is the minimum of RFC 7518 section 3.3.
	minRSABits = 2048
	// maxRSABits limits the cost of one verification.
	maxRSABits = 8192
)

// ErrUnsupportedKey reports that no supported algorithm uses a key of this type, curve or size.
var ErrUnsupportedKey = errors.New("unsupported key: want ECDSA on P-256, P-384 or P-521, or RSA of 2048 to 8192 bits")

// PublicKey verifies signatures. The zero value verifies nothing.
type PublicKey struct {
	id         string
	thumbprint string
	alg        Algorithm
	key        crypto.PublicKey
	// lowS accepts only ECDSA signatures with a low S, as this program makes them. It is set for the key that it signs with.
	lowS bool
	// unpublished keeps the key out of the JWKS of a Set.
	unpublished bool
}

// NewPublicKey returns the public key with its thumbprint as ID. key is an *ecdsa.PublicKey or *rsa.PublicKey, which must
// not change afterwards.
func NewPublicKey(key crypto.PublicKey) (PublicKey, error) {
	alg, err := algorithmOf(key)
	if err != nil {
		return PublicKey{}, err
	}
	jwk := jose.JSONWebKey{Key: key}
	sum, err := jwk.Thumbprint(crypto.SHA256)
	if err != nil {
		return PublicKey{}, ErrUnsupportedKey
	}
	thumbprint := base64.RawURLEncoding.EncodeToString(sum)
	return PublicKey{id: thumbprint, thumbprint: thumbprint, alg: alg, key: key}, nil
}

// ID returns the kid: the RFC 7638 SHA-256 thumbprint in base64url or, for a key of another issuer or signer, its name there,
// which may be empty in a JWKS.
func (k PublicKey) ID() string { return k.id }

// Thumbprint returns the RFC 7638 SHA-256 thumbprint in base64url. It identifies the key, whatever its ID.
func (k PublicKey) Thumbprint() string { return k.thumbprint }

// Algorithm returns the algorithm that the key verifies.
func (k PublicKey) Algorithm() Algorithm { return k.alg }

// Key returns the *ecdsa.PublicKey or *rsa.PublicKey. The caller must not change it.
func (k PublicKey) Key() crypto.PublicKey { return k.key }

// Named returns the key with the ID that its issuer gives it.
func (k PublicKey) Named(id string) PublicKey {
	k.id = id
	return k
}

// Published reports whether the JWKS of a Set has the key.
func (k PublicKey) Published() bool { return !k.unpublished }

// Unpublished returns the key for a Set that accepts its signatures but leaves the key out of the JWKS.
func (k PublicKey) Unpublished() PublicKey {
	k.unpublished = true
	return k
}

// OnlyLowS returns the key for a Set that accepts one form of its ECDSA signatures, the form that this program makes. See Verify.
func (k PublicKey) OnlyLowS() PublicKey {
	k.lowS = true
	return k
}

// PrivateKey signs. It is safe for concurrent use.
type PrivateKey struct {
	signer crypto.Signer
	public PublicKey
	header string
}

// Algorithms returns the names of all algorithms, the default first.
func Algorithms() []Algorithm { return []Algorithm{ES256, ES384, ES512, RS256} }

// Generate returns a new key. The key for RS256 has 2048 bits. An empty alg means DefaultAlgorithm.
func Generate(alg Algorithm) (*PrivateKey, error) {
	if alg == "" {
		alg = DefaultAlgorithm
	}
	curves := map[Algorithm]elliptic.Curve{ES256: elliptic.P256(), ES384: elliptic.P384(), ES512: elliptic.P521()}
	switch alg {
	case ES256, ES384, ES512:
		key, err := ecdsa.GenerateKey(curves[alg], rand.Reader)
		if err != nil {
			return nil, fmt.Errorf("generate %s key: %w", alg, err)
		}
		return NewPrivateKey(key)
	case RS256:
		key, err := rsa.GenerateKey(rand.Reader, generatedRSABits)
		if err != nil {
			return nil, fmt.Errorf("generate %s key: %w", RS256, err)
		}
		return NewPrivateKey(key)
	default:
		return nil, fmt.Errorf("generate signing key: algorithm %q is not one of %v", string(alg), Algorithms())
	}
}

// NewPrivateKey returns the private key for an *ecdsa.PrivateKey or *rsa.PrivateKey, which must not change afterwards.
func NewPrivateKey(key crypto.Signer) (*PrivateKey, error) {
	switch key.(type) {
	case *ecdsa.PrivateKey, *rsa.PrivateKey:
	default:
		return nil, ErrUnsupportedKey
	}
	public, err := NewPublicKey(key.Public())
	if err != nil {
		return nil, err
	}
	// Both values are base64url or a constant: neither needs escaping.
	header := `{"alg":"` + string(public.alg) + `","kid":"` + public.id + `"}`
	return &PrivateKey{signer: key, public: public, header: base64.RawURLEncoding.EncodeToString([]byte(header))}, nil
}

// Public returns the key that verifies what k signs.
func (k *PrivateKey) Public() PublicKey { return k.public }

// ID returns the kid.
func (k *PrivateKey) ID() string { return k.public.id }

// Algorithm returns the algorithm that the key signs with.
func (k *PrivateKey) Algorithm() Algorithm { return k.public.alg }

// Header returns the encoded protected header of every JWS that the key signs (RFC 7515 section 7.1), with alg and kid.
func (k *PrivateKey) Header() string { return k.header }

// String and GoString keep the key material out of texts that package fmt makes.
func (k *PrivateKey) String() string {
	return fmt.Sprintf("%s private key %s", k.public.alg, k.public.id)
}
func (k *PrivateKey) GoString() string { return k.String() }

func algorithmOf(key crypto.PublicKey) (Algorithm, error) {
	switch k := key.(type) {
	case *ecdsa.PublicKey:
		return ecdsaAlgorithm(k)
	case *rsa.PublicKey:
		return rsaAlgorithm(k)
	default:
		return "", ErrUnsupportedKey
	}
}

func ecdsaAlgorithm(k *ecdsa.PublicKey) (Algorithm, error) {
	var alg Algorithm
	switch k.Curve {
	case elliptic.P256():
		alg = ES256
	case elliptic.P384():
		alg = ES384
	case elliptic.P521():
		alg = ES512
	default:
		return "", ErrUnsupportedKey
	}
	if _, err := k.Bytes(); err != nil { // refuses a point that is not on its curve
		return "", ErrUnsupportedKey
	}
	return alg, nil
}

func rsaAlgorithm(k *rsa.PublicKey) (Algorithm, error) {
	if k.N == nil || k.E < 3 || k.E%2 == 0 {
		return "", ErrUnsupportedKey
	}
	if bits := k.N.BitLen(); bits < minRSABits || bits > maxRSABits {
		return "", ErrUnsupportedKey
	}
	return RS256, nil
}

// ErrBadSignature reports that a signature is not one of the key over the input.
var ErrBadSignature = errors.New("signature does not match")

// hash returns the hash function of an algorithm.
func (a Algorithm) hash() crypto.Hash {
	switch a {
	case ES384:
		return crypto.SHA384
	case ES512:
		return crypto.SHA512
	default:
		return crypto.SHA256
	}
}

// coordinateSize is the length in octets of R and of S in an ECDSA JWS signature (RFC 7518 section 3.4).
func (a Algorithm) coordinateSize() int {
	switch a {
	case ES256:
		return 32
	case ES384:
		return 48
	case ES512:
		return 66
	default:
		return 0
	}
}

// Sign returns the JWS signature of input, in the form of RFC 7518 section 3 for the key's algorithm. An ECDSA signature
// has the lower of the two values of S that are valid for its R.
func (k *PrivateKey) Sign(input []byte) ([]byte, error) {
	digest := digest(k.public.alg, input)
	switch key := k.signer.(type) {
	case *ecdsa.PrivateKey:
		r, s, err := ecdsa.Sign(rand.Reader, key, digest)
		if err != nil {
			return nil, fmt.Errorf("sign with key %s: %w", k.ID(), err)
		}
		if !isLow(s, key.Curve) {
			s.Sub(key.Curve.Params().N, s)
		}
		return joinCoordinates(r, s, k.public.alg.coordinateSize()), nil
	case *rsa.PrivateKey:
		sig, err := rsa.SignPKCS1v15(nil, key, crypto.SHA256, digest)
		if err != nil {
			return nil, fmt.Errorf("sign with key %s: %w", k.ID(), err)
		}
		return sig, nil
	default:
		return nil, ErrUnsupportedKey
	}
}

// Verify returns nil if sig is a signature of input by k's private key, else ErrBadSignature.
//
// For each ECDSA signature (R, S), the signature (R, N-S) is valid too, and anybody can compute it. For the key that a Set
// signs with, Verify accepts only the signature with the lower S, as Sign makes it, so that a signed token has only one
// form. Other signers, such as kube-apiserver, make both, so both are accepted for other keys. Revoke tokens by jti, not by
// their text.
func (k PublicKey) Verify(input, sig []byte) error {
	switch key := k.key.(type) {
	case *ecdsa.PublicKey:
		size := k.alg.coordinateSize()
		if len(sig) != 2*size {
			return ErrBadSignature
		}
		r, s := new(big.Int).SetBytes(sig[:size]), new(big.Int).SetBytes(sig[size:])
		if k.lowS && !isLow(s, key.Curve) || !ecdsa.Verify(key, digest(k.alg, input), r, s) {
			return ErrBadSignature
		}
		return nil
	case *rsa.PublicKey:
		if rsa.VerifyPKCS1v15(key, crypto.SHA256, digest(k.alg, input), sig) != nil {
			return ErrBadSignature
		}
		return nil
	default:
		return ErrBadSignature
	}
}

// isLow reports whether s is at most half of the order of the curve's group.
func isLow(s *big.Int, curve elliptic.Curve) bool {
	return new(big.Int).Lsh(s, 1).Cmp(curve.Params().N) < 0
}

func digest(alg Algorithm, input []byte) []byte {
	h := alg.hash().New()
	h.Write(input)
	return h.Sum(nil)
}

func joinCoordinates(r, s *big.Int, size int) []byte {
	sig := make([]byte, 2*size)
	r.FillBytes(sig[:size])
	s.FillBytes(sig[size:])
	return sig
}
