package signingkey

import (
	"bytes"
	"crypto/ecdsa"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"strings"
	"testing"

	"github.com/go-jose/go-jose/v4"
	"github.com/google/go-cmp/cmp"
)

func TestSet(t *testing.T) {
	t.Parallel()
	signer, other := must(NewPrivateKey(p256Key())), must(NewPublicKey(rsaKey().Public()))
	set, err := NewSet(signer, other, signer.Public(), other)
	if err != nil {
		t.Fatal(err)
	}
	if set.Signer("") != signer || set.Current() != set || len(set.Keys()) != 2 {
		t.Errorf("set of %v, %d keys", set.Signer(""), len(set.Keys()))
	}
	if got := set.Find(other.ID()); len(got) != 1 || got[0].ID() != other.ID() {
		t.Errorf("Find = %v", got)
	}
	if len(set.Find("")) != 2 || set.Find("nobody") != nil {
		t.Error("no kid means all keys, an unknown one none")
	}
	stranger := must(NewPublicKey(p384Key().Public()))
	stranger.id = other.ID()
	if !set.Accepts(other) || set.Accepts(stranger) || set.Accepts(PublicKey{}) {
		t.Error("Accepts is wrong")
	}
}

// TestSeveralSigners checks which key of a set signs with which algorithm, and that two keys for one algorithm are an error.
func TestSeveralSigners(t *testing.T) {
	t.Parallel()
	ec, rs := must(NewPrivateKey(p256Key())), must(NewPrivateKey(rsaKey()))
	set := must(NewSetOf([]*PrivateKey{ec, rs}, must(NewPublicKey(p384Key().Public()))))
	for alg, want := range map[Algorithm]*PrivateKey{"": ec, ES256: ec, RS256: rs, ES384: nil, "none": nil} {
		if got := set.Signer(alg); got != want {
			t.Errorf("the signer for %q is %v, want %v", alg, got, want)
		}
	}
	if got := set.Signers(); len(got) != 2 || got[0] != ec || got[1] != rs {
		t.Errorf("signers %v", got)
	}
	keys := set.Keys()
	if len(keys) != 3 || keys[0].ID() != ec.ID() || keys[1].ID() != rs.ID() || !keys[0].lowS {
		t.Errorf("keys %v", keys)
	}
	other := must(Generate(ES256))
	if _, err := NewSetOf([]*PrivateKey{ec, rs, other}); !errors.Is(err, ErrTwoSigners) {
		t.Errorf("two signers for one algorithm: %v", err)
	}
}

// TestUnpublishedKeys checks that a set accepts a key that its JWKS leaves out.
func TestUnpublishedKeys(t *testing.T) {
	t.Parallel()
	shown, hidden := must(NewPublicKey(p256Key().Public())), must(NewPublicKey(rsaKey().Public())).Unpublished()
	set := must(NewSet(nil, shown, hidden))
	if !set.Accepts(hidden) || len(set.Find(hidden.ID())) != 1 || len(set.Keys()) != 2 {
		t.Error("the set does not accept the unpublished key")
	}
	if got := set.Published(); len(got) != 1 || got[0].ID() != shown.ID() || strings.Contains(string(set.JWKS()), hidden.ID()) {
		t.Errorf("published %v in %s", got, set.JWKS())
	}
	if got := must(NewSet(nil, hidden)).JWKS(); string(got) != `{"keys":[]}` {
		t.Errorf("the JWKS without a published key is %s", got)
	}
}

// TestOneFormOfSignatures checks that a set accepts one form of signatures of its signer, and both of other keys.
func TestOneFormOfSignatures(t *testing.T) {
	t.Parallel()
	input := []byte("input")
	for name, key := range map[string]*ecdsa.PrivateKey{"ES256": p256Key(), "ES384": p384Key(), "ES512": p521Key()} {
		signer, other := must(NewPrivateKey(key)), must(NewPrivateKey(rsaKey()))
		alone, listed, elsewhere := must(NewSet(signer)), must(NewSet(signer, signer.Public())), must(NewSet(other, signer.Public()))
		for range 32 {
			low := must(signer.Sign(input))
			high := bytes.Clone(low)
			s := new(big.Int).SetBytes(low[len(low)/2:])
			if half := new(big.Int).Rsh(key.Params().N, 1); s.Cmp(half) > 0 {
				t.Fatalf("%s signed with an S over half of the order", name)
			}
			s.Sub(key.Params().N, s).FillBytes(high[len(high)/2:])
			for _, tt := range []struct {
				set  string
				keys *Set
				sig  []byte
				want error
			}{
				{"the signer alone", alone, low, nil}, {"the signer alone", alone, high, ErrBadSignature},
				{"the signer listed as well", listed, low, nil}, {"the signer listed as well", listed, high, nil},
				{"another signer", elsewhere, low, nil}, {"another signer", elsewhere, high, nil},
			} {
				if err := tt.keys.Find(signer.ID())[0].Verify(input, tt.sig); !errors.Is(err, tt.want) {
					t.Fatalf("%s, %s, higher S %v: %v, want %v", name, tt.set, &tt.sig[0] == &high[0], err, tt.want)
				}
			}
		}
	}
}

func TestNewSetRefuses(t *testing.T) {
	t.Parallel()
	if _, err := NewSet(nil); !errors.Is(err, ErrNoKey) {
		t.Errorf("no key: %v", err)
	}
	if _, err := NewSet(nil, PublicKey{}); !errors.Is(err, ErrUnsupportedKey) {
		t.Errorf("zero key: %v", err)
	}
	var many []PublicKey
	for i := range MaxKeys + 1 {
		k := must(NewPublicKey(p256Key().Public()))
		k.id = fmt.Sprint(i)
		many = append(many, k)
	}
	if _, err := NewSet(nil, many...); !errors.Is(err, ErrTooManyKeys) {
		t.Errorf("too many: %v", err)
	}
	if _, err := NewSet(nil, many[1:]...); err != nil {
		t.Errorf("just few enough: %v", err)
	}
}

func TestJWKSIsPublic(t *testing.T) {
	t.Parallel()
	set := must(NewSet(must(NewPrivateKey(p256Key())), must(NewPublicKey(rsaKey().Public())), must(NewPublicKey(p521Key().Public()))))
	var doc struct{ Keys []map[string]any }
	if err := json.Unmarshal(set.JWKS(), &doc); err != nil {
		t.Fatal(err)
	}
	members := map[string][]string{
		"EC":  {"alg", "crv", "kid", "kty", "use", "x", "y"},
		"RSA": {"alg", "e", "kid", "kty", "n", "use"},
	}
	for i, k := range doc.Keys {
		want := set.Keys()[i]
		if k["kid"] != want.ID() || k["alg"] != string(want.Algorithm()) || k["use"] != "sig" {
			t.Errorf("key %d: %v", i, k)
		}
		allowed := members[k["kty"].(string)]
		if len(k) != len(allowed) {
			t.Errorf("key %d has members %v, want %v", i, k, allowed)
		}
	}
	back, err := ParseJWKS(set.JWKS())
	if err != nil || back.Signer("") != nil {
		t.Fatalf("ParseJWKS = %v", err)
	}
	if diff := cmp.Diff(string(set.JWKS()), string(back.JWKS())); diff != "" {
		t.Errorf("round trip:\n%s", diff)
	}
	set.JWKS()[0] = 'x'
	if set.JWKS()[0] != '{' {
		t.Error("a caller can change the set's JWKS")
	}
}

func TestParseJWKS(t *testing.T) {
	t.Parallel()
	jwk := func(key any, kid, use, alg string) string {
		return string(must(jose.JSONWebKey{Key: key, KeyID: kid, Use: use, Algorithm: alg}.MarshalJSON()))
	}
	ec, rs := p256Key().Public(), rsaKey().Public()
	for _, tt := range []struct {
		name string
		keys []string
		ids  []string
		err  error
	}{
		{name: "named as the issuer likes", keys: []string{jwk(ec, "2026-08", "", "")}, ids: []string{"2026-08"}},
		{name: "nameless", keys: []string{jwk(rs, "", "sig", "RS256")}, ids: []string{""}},
		{name: "one name, two keys", keys: []string{jwk(ec, "a", "", ""), jwk(rs, "a", "", "")}, ids: []string{"a", "a"}},
		{name: "unusable ones beside it", ids: []string{"a"}, keys: []string{
			`{"kty":"oct","k":"AAAA"}`, `{"kty":"new"}`, `{}`, `null`, `7`, `{"kty":"EC","crv":"P-256","x":"AA","y":"AA"}`,
			jwk(rs, "e", "enc", ""), jwk(rs, "p", "sig", "PS256"), jwk(p384Key(), "private", "", ""), jwk(ec, "a", "sig", "ES256"),
		}},
		{name: "only unusable ones", keys: []string{`{"kty":"oct","k":"AAAA"}`}, err: ErrNoKey},
		{name: "none", err: ErrNoKey},
		{name: "just few enough", keys: append(strings.Split(strings.Repeat("{},", MaxKeys-2)+"{}", ","), jwk(ec, "a", "", "")), ids: []string{"a"}},
		{name: "too many", keys: strings.Split(strings.Repeat("{},", MaxKeys)+"{}", ","), err: ErrTooManyKeys},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			set, err := ParseJWKS([]byte(`{"keys":[` + strings.Join(tt.keys, ",") + `]}`))
			if !errors.Is(err, tt.err) {
				t.Fatalf("error %v, want %v", err, tt.err)
			}
			var ids []string
			if set != nil {
				for _, k := range set.Keys() {
					ids = append(ids, k.ID())
				}
			}
			if diff := cmp.Diff(tt.ids, ids); diff != "" {
				t.Errorf("ids:\n%s", diff)
			}
		})
	}
	for _, bad := range []string{"", "null", "[]", "{}", `{"Keys":[]}`, `{"keys":7}`, `{"keys":[],"keys":[]}`, `{"keys":[]} x`} {
		if _, err := ParseJWKS([]byte(bad)); !errors.Is(err, ErrNotJWKS) {
			t.Errorf("ParseJWKS(%q) = %v, want %v", bad, err, ErrNotJWKS)
		}
	}
	if _, err := ParseJWKS(bytes.Repeat([]byte(" "), MaxFileSize+1)); !errors.Is(err, ErrTooLarge) {
		t.Errorf("oversized: %v", err)
	}
	if _, err := ParseJWKS(bytes.Repeat([]byte(" "), MaxFileSize)); !errors.Is(err, ErrNotJWKS) {
		t.Errorf("just small enough: %v", err)
	}
}

func BenchmarkSign(b *testing.B) {
	for _, key := range []*PrivateKey{must(NewPrivateKey(p256Key())), must(NewPrivateKey(rsaKey()))} {
		b.Run(string(key.Algorithm()), func(b *testing.B) {
			input := make([]byte, 800)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := key.Sign(input); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkVerify(b *testing.B) {
	for _, key := range []*PrivateKey{must(NewPrivateKey(p256Key())), must(NewPrivateKey(rsaKey()))} {
		b.Run(string(key.Algorithm()), func(b *testing.B) {
			input := make([]byte, 800)
			sig := must(key.Sign(input))
			b.ReportAllocs()
			for b.Loop() {
				if err := key.Public().Verify(input, sig); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
