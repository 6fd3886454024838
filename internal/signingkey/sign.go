package signingkey

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	_ "crypto/sha256" // SHA-256 for crypto.Hash.New
	_ "crypto/sha512" // SHA-384 and SHA-512 for crypto.Hash.New
	"errors"
	"fmt"
	"math/big"
)

// ErrBadSignature says that a signature was not made by the key over the input.
var ErrBadSignature = errors.New("signature does not match")

// hash returns the digest an algorithm signs.
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

// Sign returns the JWS signature of input in the form RFC 7518 section 3 gives for the key's algorithm. Of the two ECDSA
// signatures that are valid for each other's R, it is the one with the lower S.
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

// Verify returns nil if k's private half signed input with sig, else ErrBadSignature.
//
// An ECDSA signature (R, S) has a twin (R, N-S) that anyone can compute and that verifies too. Of the key that a Set signs
// with, only the one with the lower S is taken, as Sign makes it, so that each token it signed has one spelling. Other
// signers, kube-apiserver among them, make both, so both are taken of every other key. Revocation must go by `jti` in
// any case.
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
