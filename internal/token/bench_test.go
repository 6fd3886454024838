package token

import (
	"context"
	"testing"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"lanyard.dev/internal/signingkey"
)

func benchmarkIssue(b *testing.B, key *signingkey.PrivateKey) {
	f := newFixture(b, key)
	r := podRequest()
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := f.issuer.Issue(b.Context(), r); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkIssueES256(b *testing.B) { benchmarkIssue(b, es256Key()) }
func BenchmarkIssueRS256(b *testing.B) { benchmarkIssue(b, rs256Key()) }

// BenchmarkSignGoJOSE makes the same token with go-jose's builder.
func BenchmarkSignGoJOSE(b *testing.B) {
	f := newFixture(b, es256Key())
	private, err := f.key.MarshalPEM()
	if err != nil {
		b.Fatal(err)
	}
	jwk := jose.JSONWebKey{Key: parseECDSA(b, private), KeyID: f.key.ID()}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: jwk}, nil)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		claims, err := f.issuer.claims(podRequest())
		if err != nil {
			b.Fatal(err)
		}
		if _, err := jwt.Signed(signer).Claims(claims).Serialize(); err != nil {
			b.Fatal(err)
		}
	}
}

func benchmarkVerifyCold(b *testing.B, key *signingkey.PrivateKey) {
	f := newFixture(b, key)
	text := f.issue(b, podRequest())
	b.ReportAllocs()
	for b.Loop() {
		facts, err := f.verifier.establish(text, &digest{})
		if err != nil {
			b.Fatal(err)
		}
		if _, err := f.verifier.check(context.Background(), facts, []string{testAudience}); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkVerifyCold(b *testing.B)      { benchmarkVerifyCold(b, es256Key()) }
func BenchmarkVerifyColdRS256(b *testing.B) { benchmarkVerifyCold(b, rs256Key()) }

func BenchmarkVerifyHot(b *testing.B) {
	f := newFixture(b, es256Key())
	text, audiences := f.issue(b, podRequest()), []string{testAudience}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := f.verifier.Verify(context.Background(), text, audiences); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkVerifyHotParallel(b *testing.B) {
	f := newFixture(b, es256Key())
	text, audiences := f.issue(b, podRequest()), []string{testAudience}
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if _, err := f.verifier.Verify(context.Background(), text, audiences); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// BenchmarkVerifyForeign refuses the token of another issuer.
func BenchmarkVerifyForeign(b *testing.B) {
	f := newFixture(b, es256Key())
	text := forge(b, f.key, headerOf(f.key), payload("iss", `"https://elsewhere.example"`))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := f.verify(text); !Foreign(err) {
			b.Fatal(err)
		}
	}
}
