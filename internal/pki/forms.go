package pki

import (
	"bytes"
	"crypto/elliptic"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"math/big"
)

// OtherForms returns the SHA-256 digests of the other encodings in which a CA may have signed the same certificate. Whoever holds a
// certificate can make others of it that verifiers accept, without any private key: package crypto/x509 accepts bytes after the
// signature and unused bits in it, and ECDSA accepts the signature (r, n-s) wherever it accepts (r, s). The digest of such a copy
// is not that of the certificate that the CA has signed. The result has at most two digests.
func OtherForms(c *x509.Certificate) (digests [][sha256.Size]byte) {
	var parts certificateParts
	if _, err := asn1.Unmarshal(c.Raw, &parts); err != nil {
		return nil
	}
	add := func(signature []byte) {
		parts.Signature = asn1.BitString{Bytes: signature, BitLength: 8 * len(signature)}
		if form, err := asn1.Marshal(parts); err == nil && !bytes.Equal(form, c.Raw) {
			digests = append(digests, sha256.Sum256(form))
		}
	}
	add(c.Signature)
	if other := otherSignature(c.Signature); other != nil {
		add(other)
	}
	return digests
}

type certificateParts struct {
	Signed, Algorithm asn1.RawValue
	Signature         asn1.BitString
}

// otherSignature returns the other form of an ECDSA signature, or nil for a signature of another kind.
func otherSignature(signature []byte) []byte {
	var parsed struct{ R, S *big.Int }
	if rest, err := asn1.Unmarshal(signature, &parsed); err != nil || len(rest) > 0 || parsed.R.Sign() <= 0 || parsed.S.Sign() <= 0 {
		return nil
	}
	// The certificate does not name the curve of its CA. r and s are nearly as long as the order of the curve.
	for _, curve := range []elliptic.Curve{elliptic.P224(), elliptic.P256(), elliptic.P384(), elliptic.P521()} {
		if n := curve.Params().N; parsed.R.Cmp(n) < 0 && parsed.S.Cmp(n) < 0 {
			parsed.S.Sub(n, parsed.S)
			other, err := asn1.Marshal(parsed)
			if err != nil {
				return nil
			}
			return other
		}
	}
	return nil
}
