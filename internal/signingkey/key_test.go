package signingkey

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/go-jose/go-jose/v4"

	"lanyard.dev/internal/files"
)

var (
	rsaKey  = sync.OnceValue(func() *rsa.PrivateKey { return must(rsa.GenerateKey(rand.Reader, 2048)) })
	p256Key = sync.OnceValue(func() *ecdsa.PrivateKey { return must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader)) })
	p384Key = sync.OnceValue(func() *ecdsa.PrivateKey { return must(ecdsa.GenerateKey(elliptic.P384(), rand.Reader)) })
	p521Key = sync.OnceValue(func() *ecdsa.PrivateKey { return must(ecdsa.GenerateKey(elliptic.P521(), rand.Reader)) })
)

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func block(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

func pkcs8(key any) []byte { return block("PRIVATE KEY", must(x509.MarshalPKCS8PrivateKey(key))) }
func pkix(key any) []byte  { return block("PUBLIC KEY", must(x509.MarshalPKIXPublicKey(key))) }
func sec1(key *ecdsa.PrivateKey) []byte {
	return block("EC PRIVATE KEY", must(x509.MarshalECPrivateKey(key)))
}

func certificate(key crypto.Signer) []byte {
	template := &x509.Certificate{SerialNumber: big.NewInt(1)}
	return block("CERTIFICATE", must(x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)))
}

func idOf(key crypto.PublicKey) string { return must(NewPublicKey(key)).ID() }

func TestGenerate(t *testing.T) {
	t.Parallel()
	for alg, want := range map[Algorithm]Algorithm{"": ES256, ES256: ES256, RS256: RS256} {
		key, err := Generate(alg)
		if err != nil || key.Algorithm() != want {
			t.Errorf("Generate(%q) = %v, %v", alg, key, err)
		}
	}
	for _, alg := range Algorithms() {
		if key, err := Generate(alg); err != nil || key.Algorithm() != alg {
			t.Errorf("Generate(%q) = %v, %v", alg, key, err)
		}
	}
	if _, err := Generate("HS256"); err == nil {
		t.Error("HS256 generated")
	}
}

// TestIDIsThumbprint uses the example of RFC 7638 section 3.1.
func TestIDIsThumbprint(t *testing.T) {
	t.Parallel()
	const n = "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3ok" +
		"njhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQv" +
		"RL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw"
	modulus := new(big.Int).SetBytes(must(base64.RawURLEncoding.DecodeString(n)))
	key, err := NewPublicKey(&rsa.PublicKey{N: modulus, E: 65537})
	if err != nil || key.ID() != "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs" {
		t.Errorf("ID = %q, %v", key.ID(), err)
	}
}

func TestSignAgreesWithGoJOSE(t *testing.T) {
	t.Parallel()
	for alg, signer := range map[Algorithm]crypto.Signer{ES256: p256Key(), ES384: p384Key(), ES512: p521Key(), RS256: rsaKey()} {
		key := must(NewPrivateKey(signer))
		if key.Algorithm() != alg {
			t.Errorf("algorithm %s, want %s", key.Algorithm(), alg)
		}
		signed := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"`+string(alg)+`"}`)) + ".e30"
		sig := must(key.Sign([]byte(signed)))
		compact := signed + "." + base64.RawURLEncoding.EncodeToString(sig)
		jws := must(jose.ParseSignedCompact(compact, []jose.SignatureAlgorithm{jose.SignatureAlgorithm(alg)}))
		if _, err := jws.Verify(signer.Public()); err != nil {
			t.Errorf("%s: go-jose: %v", alg, err)
		}
		if err := key.Public().Verify([]byte(signed), sig); err != nil {
			t.Errorf("%s: Verify: %v", alg, err)
		}
		theirs := must(jose.NewSigner(jose.SigningKey{Algorithm: jose.SignatureAlgorithm(alg), Key: signer}, nil))
		parts := strings.Split(must(must(theirs.Sign([]byte("x"))).CompactSerialize()), ".")
		sig = must(base64.RawURLEncoding.DecodeString(parts[2]))
		if err := key.Public().Verify([]byte(parts[0]+"."+parts[1]), sig); err != nil {
			t.Errorf("%s: Verify of go-jose's signature: %v", alg, err)
		}
		for name, bad := range map[string][]byte{
			"empty": nil, "short": sig[1:], "long": append(bytes.Clone(sig), 0), "zeros": make([]byte, len(sig)),
			"ones": bytes.Repeat([]byte{0xff}, len(sig)), "other": append([]byte{sig[0] ^ 1}, sig[1:]...),
		} {
			if err := key.Public().Verify([]byte(parts[0]+"."+parts[1]), bad); !errors.Is(err, ErrBadSignature) {
				t.Errorf("%s: %s signature: %v", alg, name, err)
			}
		}
	}
	if err := (PublicKey{}).Verify(nil, nil); !errors.Is(err, ErrBadSignature) {
		t.Errorf("zero key: %v", err)
	}
}

func TestParsePrivatePEM(t *testing.T) {
	t.Parallel()
	parameters := block("EC PARAMETERS", []byte{6, 8, 42, 134, 72, 206, 61, 3, 1, 7})
	encrypted := pem.EncodeToMemory(&pem.Block{
		Type: "EC PRIVATE KEY", Headers: map[string]string{"Proc-Type": "4,ENCRYPTED", "DEK-Info": "AES-128-CBC,00"}, Bytes: []byte{1},
	})
	_, edwards, _ := ed25519.GenerateKey(rand.Reader)
	p224 := must(ecdsa.GenerateKey(elliptic.P224(), rand.Reader))
	for _, tt := range []struct {
		name string
		data []byte
		id   string
		want string
	}{
		{name: "PKCS#8 EC", data: pkcs8(p256Key()), id: idOf(p256Key().Public())},
		{name: "PKCS#8 RSA", data: pkcs8(rsaKey()), id: idOf(rsaKey().Public())},
		{name: "SEC1", data: sec1(p384Key()), id: idOf(p384Key().Public())},
		{name: "SEC1 after parameters", data: append(parameters, sec1(p256Key())...), id: idOf(p256Key().Public())},
		{name: "PKCS#1", data: block("RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(rsaKey())), id: idOf(rsaKey().Public())},
		{name: "beside a certificate", data: append(certificate(rsaKey()), pkcs8(p521Key())...), id: idOf(p521Key().Public())},
		{name: "words before it", data: append([]byte("my key\r\n"), pkcs8(p256Key())...), id: idOf(p256Key().Public())},
		{name: "two", data: append(pkcs8(p256Key()), pkcs8(p384Key())...), want: "more than one private key"},
		{name: "public only", data: pkix(p256Key().Public()), want: "no usable key: no private key"},
		{name: "empty", want: "not valid PEM: no block in it"},
		{name: "junk", data: []byte("\x00\xffjunk"), want: "not valid PEM: no block in it"},
		{name: "cut short", data: pkcs8(p256Key())[:100], want: "not valid PEM"},
		{name: "whole, then cut short", data: append(pkcs8(p256Key()), pkcs8(p384Key())[:100]...), want: "not valid PEM"},
		{name: "wrong content", data: block("EC PRIVATE KEY", []byte{1, 2, 3}), want: "PEM block 1: does not hold the ec private key it announces"},
		{name: "wrong label", data: block("RSA PRIVATE KEY", must(x509.MarshalECPrivateKey(p256Key()))), want: "PEM block 1: does not hold the rsa private key it announces"},
		{name: "encrypted PKCS#8", data: block("ENCRYPTED PRIVATE KEY", []byte{1}), want: "PEM block 1: " + ErrEncryptedKey.Error()},
		{name: "encrypted SEC1", data: encrypted, want: "PEM block 1: " + ErrEncryptedKey.Error()},
		{name: "OpenSSH", data: block("OPENSSH PRIVATE KEY", []byte{1}), want: "PEM block 1: not a private key, public key or certificate"},
		{name: "Ed25519", data: pkcs8(edwards), want: "PEM block 1: " + ErrUnsupportedKey.Error()},
		{name: "P-224", data: pkcs8(p224), want: "PEM block 1: " + ErrUnsupportedKey.Error()},
		{name: "oversized", data: bytes.Repeat([]byte("a"), MaxFileSize+1), want: "larger than 1048576 bytes"},
		{name: "too many", data: bytes.Repeat(block("EC PARAMETERS", nil), 2*MaxKeys+1), want: "more than 100 keys"},
		{name: "just large enough", data: append(bytes.Repeat([]byte("\n"), MaxFileSize-len(pkcs8(p256Key()))), pkcs8(p256Key())...), id: idOf(p256Key().Public())},
		{name: "just many enough", data: append(bytes.Repeat(block("EC PARAMETERS", nil), 2*MaxKeys-1), pkcs8(p256Key())...), id: idOf(p256Key().Public())},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			key, err := ParsePrivatePEM(tt.data)
			if tt.want != "" {
				if err == nil || err.Error() != tt.want {
					t.Errorf("error %v\n want %s", err, tt.want)
				}
				return
			}
			if err != nil || key.ID() != tt.id {
				t.Errorf("key %v, %v", key, err)
			}
		})
	}
}

func TestParsePublicPEM(t *testing.T) {
	t.Parallel()
	small := must(x509.MarshalPKIXPublicKey(&rsa.PublicKey{N: new(big.Int).SetBit(big.NewInt(1), 1023, 1), E: 65537}))
	pkcs1 := block("RSA PUBLIC KEY", x509.MarshalPKCS1PublicKey(&rsaKey().PublicKey))
	for _, tt := range []struct {
		name string
		data [][]byte
		ids  []string
		want string
	}{
		{name: "PKIX", data: [][]byte{pkix(p256Key().Public())}, ids: []string{idOf(p256Key().Public())}},
		{name: "PKCS#1", data: [][]byte{pkcs1}, ids: []string{idOf(rsaKey().Public())}},
		{name: "certificate", data: [][]byte{certificate(p384Key())}, ids: []string{idOf(p384Key().Public())}},
		{name: "private", data: [][]byte{sec1(p521Key())}, ids: []string{idOf(p521Key().Public())}},
		{
			name: "several, one twice", data: [][]byte{pkix(p256Key().Public()), certificate(rsaKey()), pkcs1, sec1(p384Key())},
			ids: []string{idOf(p256Key().Public()), idOf(rsaKey().Public()), idOf(p384Key().Public())},
		},
		{name: "a small RSA key", data: [][]byte{pkix(p256Key().Public()), block("PUBLIC KEY", small)}, want: "PEM block 2: " + ErrUnsupportedKey.Error()},
		{name: "parameters only", data: [][]byte{block("EC PARAMETERS", nil)}, want: "no usable key"},
		{name: "request", data: [][]byte{block("CERTIFICATE REQUEST", nil)}, want: "PEM block 1: not a private key, public key or certificate"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			keys, err := ParsePublicPEM(bytes.Join(tt.data, []byte("\n")))
			if tt.want != "" {
				if err == nil || err.Error() != tt.want {
					t.Errorf("error %v\n want %s", err, tt.want)
				}
				return
			}
			var ids []string
			for _, k := range keys {
				ids = append(ids, k.ID())
			}
			if err != nil || strings.Join(ids, " ") != strings.Join(tt.ids, " ") {
				t.Errorf("keys %q, %v\nwant %q", ids, err, tt.ids)
			}
		})
	}
}

func TestLoad(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "sa.key")
	key := must(NewPrivateKey(p256Key()))
	if err := os.WriteFile(path, must(key.MarshalPEM()), 0o600); err != nil {
		t.Fatal(err)
	}
	if loaded, err := LoadPrivate(path); err != nil || loaded.ID() != key.ID() {
		t.Errorf("LoadPrivate = %v, %v", loaded, err)
	}
	if keys, err := LoadPublic(path); err != nil || len(keys) != 1 || keys[0].ID() != key.ID() {
		t.Errorf("LoadPublic = %v, %v", keys, err)
	}
}

// TestRSAKeysAreBounded checks the limits for the size of the modulus, and that the exponent is odd and at least 3.
func TestRSAKeysAreBounded(t *testing.T) {
	t.Parallel()
	n := func(bits uint) *big.Int { n := new(big.Int).Lsh(big.NewInt(1), bits-1); return n.Add(n, big.NewInt(1)) }
	for _, tt := range []struct {
		key  rsa.PublicKey
		want bool
	}{
		{rsa.PublicKey{N: n(2048), E: 65537}, true}, {rsa.PublicKey{N: n(8192), E: 65537}, true}, {rsa.PublicKey{N: n(2048), E: 3}, true},
		{rsa.PublicKey{N: n(2047), E: 65537}, false}, {rsa.PublicKey{N: n(8193), E: 65537}, false}, {rsa.PublicKey{E: 65537}, false},
		{rsa.PublicKey{N: n(2048), E: 1}, false}, {rsa.PublicKey{N: n(2048), E: 4}, false}, {rsa.PublicKey{N: n(2048), E: -3}, false},
	} {
		_, err := NewPublicKey(&tt.key)
		if tt.want && err != nil || !tt.want && !errors.Is(err, ErrUnsupportedKey) {
			t.Errorf("N=%v E=%d: %v, want accepted %v", tt.key.N, tt.key.E, err, tt.want)
		}
	}
}

func TestLoadNamesTheFile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	junk := filepath.Join(dir, "junk.pem")
	huge := filepath.Join(dir, "huge.pem")
	full := filepath.Join(dir, "full.pem")
	for path, data := range map[string][]byte{junk: []byte("not a key"), huge: make([]byte, MaxFileSize+1), full: make([]byte, MaxFileSize)} {
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for path, want := range map[string]error{
		junk: ErrNotPEM, huge: files.ErrTooLarge, full: ErrNotPEM, filepath.Join(dir, "missing.pem"): fs.ErrNotExist, dir: nil,
	} {
		_, private := LoadPrivate(path)
		_, public := LoadPublic(path)
		for _, err := range []error{private, public} {
			if err == nil || !strings.Contains(err.Error(), path) || (want != nil && !errors.Is(err, want)) || (want == nil && errors.Is(err, ErrNotPEM)) {
				t.Errorf("load %s: %v, want %v", path, err, want)
			}
		}
	}
}

func TestPrivateKeyTextHidesTheKey(t *testing.T) {
	t.Parallel()
	key := must(NewPrivateKey(p256Key()))
	for _, verb := range []string{"%v", "%+v", "%#v", "%s"} {
		if got := fmt.Sprintf(verb, key); got != "ES256 private key "+key.ID() {
			t.Errorf("%s prints %q", verb, got)
		}
	}
}

// FuzzParsePEM checks that no file makes the parsers panic, hang, or return a key that cannot be used.
func FuzzParsePEM(f *testing.F) {
	f.Add(pkcs8(p256Key()))
	f.Add(sec1(p384Key()))
	f.Add(block("RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(rsaKey())))
	f.Add(append(pkix(p521Key().Public()), certificate(p256Key())...))
	f.Add([]byte("-----BEGIN PUBLIC KEY-----\n-----END PUBLIC KEY-----"))
	f.Fuzz(func(t *testing.T, data []byte) {
		if key, err := ParsePrivatePEM(data); err == nil {
			sig := must(key.Sign(data))
			if err := key.Public().Verify(data, sig); err != nil {
				t.Errorf("key does not verify its own signature: %v", err)
			}
		}
		if keys, err := ParsePublicPEM(data); err == nil {
			if _, err := NewSet(nil, keys...); err != nil && !errors.Is(err, ErrTooManyKeys) {
				t.Errorf("parsed keys make no set: %v", err)
			}
		}
	})
}
