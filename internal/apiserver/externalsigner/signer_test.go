package externalsigner

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	"google.golang.org/protobuf/types/known/timestamppb"
	externaljwtv1 "k8s.io/externaljwt/apis/v1"

	"lanyard.dev/internal/signingkey"
	"lanyard.dev/internal/token"
)

// TestSign issues tokens with keys of two algorithms. This server accepts them, and so does go-jose with the published keys.
func TestSign(t *testing.T) {
	t.Parallel()
	for _, key := range []*signingkey.PrivateKey{es256(), rs256()} {
		f := newFakeSigner(t, key)
		f.start(t)
		s := f.connect(t)
		a := newAuthority(t, s)
		text, claims, err := a.issue(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		wants(t, "a token of the signer", a.verify(t, text), nil)
		if claims.KeyID != "first" || s.MaxLifetime() != 2*time.Hour || s.Healthy() != nil || s.Current().Signer("") != nil {
			t.Errorf("key %q, lifetime %v, %v", claims.KeyID, s.MaxLifetime(), s.Healthy())
		}
		if age := s.MaxAge(); age <= 0 || age > time.Hour {
			t.Errorf("the keys may be cached for %v", age)
		}
		var keys jose.JSONWebKeySet
		parsed, err := jwt.ParseSigned(text, []jose.SignatureAlgorithm{jose.SignatureAlgorithm(key.Algorithm())})
		if err := errors.Join(err, json.Unmarshal(s.Current().JWKS(), &keys)); err != nil {
			t.Fatal(err)
		}
		if err := parsed.Claims(&keys, &jwt.Claims{}); err != nil || keys.Keys[0].KeyID != "first" || parsed.Headers[0].ExtraHeaders["typ"] != "JWT" {
			t.Errorf("go-jose: %v, keys %s", err, s.Current().JWKS())
		}
	}
	f := newFakeSigner(t, es256())
	f.start(t)
	_, _, err := f.connect(t).Sign(t.Context(), signingkey.RS256, []byte("{}"))
	wants(t, "another algorithm than the signer's", err, signingkey.ErrNoKey)
}

// TestLyingSigner checks that no token is made of an answer that breaks the protocol, or whose signature is wrong.
func TestLyingSigner(t *testing.T) {
	t.Parallel()
	f := newFakeSigner(t, es256())
	f.keys = append(f.keys, published("rsa", rs256()), excluded("old", next()))
	f.start(t)
	s := f.connect(t)
	a := newAuthority(t, s)
	header := func(members string) func(string) *externaljwtv1.SignJWTResponse {
		return func(claims string) *externaljwtv1.SignJWTResponse { return answerOf(es256(), members, claims) }
	}
	good := header(`{"alg":"ES256","kid":"first","typ":"JWT"}`)
	spoiled := func(spoil func(*externaljwtv1.SignJWTResponse)) func(string) *externaljwtv1.SignJWTResponse {
		return func(claims string) *externaljwtv1.SignJWTResponse {
			answer := good(claims)
			spoil(answer)
			return answer
		}
	}
	for name, tt := range map[string]struct {
		answer func(claims string) *externaljwtv1.SignJWTResponse
		want   error
	}{
		"good":                 {good, nil},
		"members in any order": {header(` { "typ" : "JWT", "kid":"first","alg":"ES256"}`), nil},
		"empty":                {func(string) *externaljwtv1.SignJWTResponse { return &externaljwtv1.SignJWTResponse{} }, errHeader},
		"other claims":         {func(string) *externaljwtv1.SignJWTResponse { return good("e30") }, errSignature},
		"no signature":         {spoiled(func(r *externaljwtv1.SignJWTResponse) { r.Signature = "" }), errSignature},
		"damaged signature":    {spoiled(func(r *externaljwtv1.SignJWTResponse) { r.Signature = "AAAA" + r.Signature[4:] }), errSignature},
		"line break in it":     {spoiled(func(r *externaljwtv1.SignJWTResponse) { r.Signature = r.Signature[:9] + "\n" + r.Signature[9:] }), errSignature},
		"padding":              {spoiled(func(r *externaljwtv1.SignJWTResponse) { r.Signature += "==" }), errSignature},
		"further segment":      {spoiled(func(r *externaljwtv1.SignJWTResponse) { r.Signature += ".e30" }), errSignature},
		"line break in header": {spoiled(func(r *externaljwtv1.SignJWTResponse) { r.Header = r.Header[:9] + "\n" + r.Header[9:] }), errHeader},
		"claims in header":     {spoiled(func(r *externaljwtv1.SignJWTResponse) { r.Header += ".e30" }), errHeader},
		"key of another name":  {header(`{"alg":"ES256","kid":"rsa","typ":"JWT"}`), errAlgorithm},
		"another key": {func(c string) *externaljwtv1.SignJWTResponse {
			return answerOf(next(), `{"alg":"ES256","kid":"first","typ":"JWT"}`, c)
		}, errSignature},
		"excluded key": {func(c string) *externaljwtv1.SignJWTResponse {
			return answerOf(next(), `{"alg":"ES256","kid":"old","typ":"JWT"}`, c)
		}, errExcluded},
		"unknown key":       {header(`{"alg":"ES256","kid":"nobody","typ":"JWT"}`), errUnknownKey},
		"another algorithm": {header(`{"alg":"RS256","kid":"first","typ":"JWT"}`), errAlgorithm},
		"none":              {header(`{"alg":"none","kid":"first","typ":"JWT"}`), errAlgorithm},
		"HS256":             {header(`{"alg":"HS256","kid":"first","typ":"JWT"}`), errAlgorithm},
		"no kid":            {header(`{"alg":"ES256","typ":"JWT"}`), errHeader},
		"empty kid":         {header(`{"alg":"ES256","kid":"","typ":"JWT"}`), errKeyID},
		"long kid":          {header(`{"alg":"ES256","kid":"` + strings.Repeat("k", maxKeyID+1) + `","typ":"JWT"}`), errKeyID},
		"kid is no text":    {header(`{"alg":"ES256","kid":7,"typ":"JWT"}`), errHeader},
		"no typ":            {header(`{"alg":"ES256","kid":"first"}`), errHeader},
		"another typ":       {header(`{"alg":"ES256","kid":"first","typ":"at+jwt"}`), errHeader},
		"jku":               {header(`{"alg":"ES256","kid":"first","typ":"JWT","jku":"https://evil.example"}`), errHeader},
		"jku for kid":       {header(`{"alg":"ES256","jku":"https://evil.example","typ":"JWT"}`), errKeyID},
		"jwk":               {header(`{"alg":"ES256","kid":"first","typ":"JWT","jwk":{}}`), errHeader},
		"x5u":               {header(`{"alg":"ES256","kid":"first","typ":"JWT","x5u":"https://evil.example"}`), errHeader},
		"crit":              {header(`{"alg":"ES256","kid":"first","typ":"JWT","crit":["b64"],"b64":false}`), errHeader},
		"duplicate":         {header(`{"alg":"ES256","kid":"first","typ":"JWT","kid":"first"}`), errHeader},
		"another case":      {header(`{"ALG":"ES256","kid":"first","typ":"JWT"}`), errHeader},
		"two objects":       {header(`{"alg":"ES256","kid":"first","typ":"JWT"}{}`), errHeader},
		"no object":         {header(`"JWT"`), errHeader},
		"not UTF-8":         {header("{\"alg\":\"ES256\",\"kid\":\"first\xff\",\"typ\":\"JWT\"}"), errHeader},
		"huge":              {spoiled(func(r *externaljwtv1.SignJWTResponse) { r.Header = strings.Repeat("A", maxSignAnswer) }), token.ErrSignerUnavailable},
		"long header":       {header(`{"alg":"ES256","kid":"first","typ":"JWT"` + strings.Repeat(" ", 8<<10) + `}`), nil},
	} {
		f.change(func() {
			f.sign = func(_ context.Context, claims string) (*externaljwtv1.SignJWTResponse, error) {
				return tt.answer(claims), nil
			}
		})
		text, _, err := a.issue(t.Context())
		switch {
		case !errors.Is(err, tt.want):
			t.Errorf("%s: %v, want %v", name, err, tt.want)
		case err == nil:
			wants(t, name, a.verify(t, text), nil)
		case text != "" || errors.Is(err, ErrAnswer) == errors.Is(err, token.ErrSignerUnavailable):
			t.Errorf("%s: %q, %v", name, text, err)
		}
	}
}

// TestSlowSigner checks that a call that takes too long ends, and that tokens are verified in the meantime.
func TestSlowSigner(t *testing.T) {
	t.Parallel()
	f := newFakeSigner(t, es256())
	f.start(t)
	s := f.connect(t, func(c *Config) { c.CallTimeout = 100 * time.Millisecond })
	a := newAuthority(t, s)
	text := a.mustIssue(t)
	late := make(chan struct{})
	f.change(func() {
		f.sign = func(ctx context.Context, claims string) (*externaljwtv1.SignJWTResponse, error) {
			<-ctx.Done() // the deadline reaches the signer
			close(late)
			return answerOf(es256(), `{"alg":"ES256","kid":"first","typ":"JWT"}`, claims), nil
		}
	})
	_, _, err := a.issue(t.Context())
	wants(t, "a slow signer", err, token.ErrSignerUnavailable)
	wants(t, "verification meanwhile", a.verify(t, text), nil)
	<-late

	ctx, cancel := context.WithCancel(t.Context())
	f.change(func() {
		f.sign = func(ctx context.Context, _ string) (*externaljwtv1.SignJWTResponse, error) {
			cancel()
			<-ctx.Done()
			return nil, ctx.Err()
		}
	})
	_, _, err = a.issue(ctx)
	wants(t, "a client that went away", err, token.ErrSignerUnavailable)
}

// TestRestartedSigner ends the signer and starts it again with another key.
func TestRestartedSigner(t *testing.T) {
	t.Parallel()
	f := newFakeSigner(t, es256())
	f.start(t)
	s := f.connect(t)
	a := newAuthority(t, s)
	old := a.mustIssue(t)
	f.stop()
	await(t, "the end of the signer is noticed", func() bool { return s.Healthy() != nil })
	_, _, err := a.issue(t.Context())
	wants(t, "a dead signer", err, token.ErrSignerUnavailable)
	wants(t, "a token from before", a.verify(t, old), nil)
	if text := s.Healthy().Error(); !strings.Contains(text, "fetch its keys: Unavailable:") || len(text) > 2*maxMessage {
		t.Errorf("health: %s", text)
	}

	f.change(func() {
		f.keys = []*externaljwtv1.Key{published("second", next()), excluded("first", es256())}
		f.sign = signsWith(next(), "second")
	})
	f.start(t)
	await(t, "the signer answers again", func() bool { return s.Healthy() == nil })
	recent := a.mustIssue(t)
	wants(t, "a token from before, after the restart", a.verify(t, old), nil)
	wants(t, "a token from after the restart", a.verify(t, recent), nil)
	if jwks := string(s.Current().JWKS()); !strings.Contains(jwks, `"second"`) || strings.Contains(jwks, `"first"`) {
		t.Errorf("published keys: %s", jwks)
	}
}

// TestUnknownKeys changes the keys of a signer before it is asked for them again.
func TestUnknownKeys(t *testing.T) {
	t.Parallel()
	f := newFakeSigner(t, es256())
	f.start(t)
	here, elsewhere := newAuthority(t, f.connect(t)), newAuthority(t, f.connect(t))
	old := here.mustIssue(t)
	f.change(func() {
		f.keys = append([]*externaljwtv1.Key{published("second", next())}, f.keys...)
		f.sign = signsWith(next(), "second")
	})
	recent := here.mustIssue(t)
	wants(t, "a new key, at the replica that issued the token", here.verify(t, recent), nil)
	wants(t, "a new key, at another replica", elsewhere.verify(t, recent), nil)
	wants(t, "the old key", elsewhere.verify(t, old), nil)

	// Tokens of a key that nobody has cause few fetches.
	stranger := newAuthority(t, func() *Signer {
		key := generate(signingkey.ES256)
		f := newFakeSigner(t, key)
		f.sign, f.keys = signsWith(key, "stranger"), []*externaljwtv1.Key{published("stranger", key)}
		f.start(t)
		return f.connect(t)
	}()).mustIssue(t)
	before := f.fetchCount()
	var callers sync.WaitGroup
	for range 100 {
		callers.Go(func() { wants(t, "an unknown key", elsewhere.verify(t, stranger), token.ErrUnknownKey) })
	}
	callers.Wait()
	if n := f.fetchCount() - before; n == 0 || n > 10 {
		t.Errorf("100 tokens of an unknown key caused %d fetches", n)
	}

	f.stop()
	wants(t, "an unknown key while the signer is dead", elsewhere.verify(t, stranger), token.ErrAnchorsStale)
	wants(t, "a known key while the signer is dead", elsewhere.verify(t, recent), nil)
}

// TestRefreshHint checks that keys are fetched as often as the signer asks for, and that a bad answer keeps the keys.
func TestRefreshHint(t *testing.T) {
	t.Parallel()
	f := newFakeSigner(t, es256())
	f.hint = 1
	f.start(t)
	s := f.connect(t, func(c *Config) { c.second = 20 * time.Millisecond })
	a := newAuthority(t, s)
	text := a.mustIssue(t)
	first := s.Current()
	before := f.fetchCount()
	await(t, "another fetch", func() bool { return f.fetchCount() > before+1 })
	if s.Current() != first {
		t.Error("the same keys are another set")
	}
	f.change(func() { f.keys = nil })
	await(t, "a bad answer", func() bool { return s.Healthy() != nil })
	wants(t, "a bad answer", s.Healthy(), ErrAnswer)
	wants(t, "a token after a bad answer", a.verify(t, text), nil)
	f.change(func() { f.keys = []*externaljwtv1.Key{published("second", next())} })
	await(t, "other keys", func() bool { return s.Healthy() == nil })
	wants(t, "a token of a key that was removed", a.verify(t, text), token.ErrUnknownKey)
}

func TestConnectRefuses(t *testing.T) {
	t.Parallel()
	small, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	p224, err := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	with := func(name string, der []byte) func(*fakeSigner) {
		return func(f *fakeSigner) { f.keys = []*externaljwtv1.Key{{KeyId: name, Key: der}} }
	}
	encode := func(key any) []byte {
		der, err := x509.MarshalPKIXPublicKey(key)
		if err != nil {
			t.Fatal(err)
		}
		return der
	}
	good := encode(es256().Public().Key())
	for want, change := range map[string]func(*fakeSigner){
		"refresh hint is 0 seconds":       func(f *fakeSigner) { f.hint = 0 },
		"refresh hint is -1 seconds":      func(f *fakeSigner) { f.hint = -1 },
		"no valid time of its data":       func(f *fakeSigner) { f.data = &timestamppb.Timestamp{Seconds: -1 << 62} },
		"it has 0 keys, want 1 to 100":    func(f *fakeSigner) { f.keys = nil },
		"it has 101 keys, want 1 to 100":  func(f *fakeSigner) { f.keys = make([]*externaljwtv1.Key, 101) },
		"its id has 0 bytes":              with("", good),
		"its id has 1025 bytes":           with(strings.Repeat("k", 1025), good),
		"it has 0 bytes, want 1 to":       with("first", nil),
		"it has 5000 bytes, want 1 to":    with("first", make([]byte, 5000)),
		"it is not a PKIX public key":     with("first", good[1:]),
		"unsupported key":                 with("first", encode(small.Public())),
		"want ECDSA on P-256, P-384 or P": with("first", encode(p224.Public())),
		"tokens live for at most 599 sec": func(f *fakeSigner) { f.lifetime = 599 },
		"ResourceExhausted": func(f *fakeSigner) {
			f.keys = []*externaljwtv1.Key{{KeyId: "first", Key: make([]byte, maxKeysAnswer)}}
		},
		"DeadlineExceeded": func(f *fakeSigner) { f.fetching = func(ctx context.Context) { <-ctx.Done() } },
	} {
		f := newFakeSigner(t, es256())
		change(f)
		f.start(t)
		timeout := time.Minute
		if want == "DeadlineExceeded" {
			timeout = 50 * time.Millisecond
		}
		_, err := f.tryConnect(t, func(c *Config) { c.StartTimeout = timeout })
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "external signer at "+f.socket+": ") {
			t.Errorf("%v, want %s", err, want)
		}
	}
	_, err = newFakeSigner(t, es256()).tryConnect(t, func(c *Config) { c.StartTimeout = 50 * time.Millisecond })
	if err == nil || !strings.Contains(err.Error(), "no such file or directory") {
		t.Errorf("without a socket: %v", err)
	}
}

// TestLifetimes checks the limits of what a signer says about the life of its tokens.
func TestLifetimes(t *testing.T) {
	t.Parallel()
	for seconds, want := range map[int64]time.Duration{600: 10 * time.Minute, 1 << 32: token.MaxLifetime, 1<<63 - 1: token.MaxLifetime} {
		got, err := maxLifetimeOf(&externaljwtv1.MetadataResponse{MaxTokenExpirationSeconds: seconds})
		if err != nil || got != want {
			t.Errorf("%d seconds: %v, %v; want %v", seconds, got, err, want)
		}
	}
	now := time.Now()
	set, err := keysOf(&externaljwtv1.FetchKeysResponse{
		Keys: []*externaljwtv1.Key{published("first", es256())}, DataTimestamp: timestamppb.Now(), RefreshHintSeconds: 1<<63 - 1,
	}, now, time.Second)
	if err != nil || set.next.Sub(now) != time.Hour {
		t.Errorf("the longest hint: %v, %v", set, err)
	}
}

// TestSignerThatStartsLater connects to a signer that does not listen yet.
func TestSignerThatStartsLater(t *testing.T) {
	t.Parallel()
	f := newFakeSigner(t, es256())
	type result struct {
		s   *Signer
		err error
	}
	connected := make(chan result)
	go func() {
		s, err := f.tryConnect(t)
		connected <- result{s, err}
	}()
	f.start(t)
	if got := <-connected; got.err != nil {
		t.Error(got.err)
	} else {
		got.s.Close()
	}
}

// TestManyTokens issues tokens at the same time while the keys change.
func TestManyTokens(t *testing.T) {
	t.Parallel()
	f := newFakeSigner(t, es256())
	f.keys = append(f.keys, published("second", next()))
	f.start(t)
	a := newAuthority(t, f.connect(t))
	var callers sync.WaitGroup
	for i := range 8 {
		callers.Go(func() {
			for range 20 {
				if i == 0 {
					f.change(func() { f.keys[0], f.keys[1] = f.keys[1], f.keys[0] })
				}
				text, _, err := a.issue(t.Context())
				if err != nil {
					t.Error(err)
					continue
				}
				wants(t, "a token", a.verify(t, text), nil)
			}
		})
	}
	callers.Wait()
}

// FuzzAnswer reads answers to Sign. What is accepted is a token that go-jose verifies, with nothing in its header but the three
// members.
func FuzzAnswer(f *testing.F) {
	claims := base64.RawURLEncoding.EncodeToString([]byte(`{"iss":"` + issuerURL + `"}`))
	good := answerOf(es256(), `{"alg":"ES256","kid":"first","typ":"JWT"}`, claims)
	set, err := signingkey.NewSet(nil, es256().Public().Named("first"), next().Public().Named("old").Unpublished())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good.Header, good.Signature)
	f.Add(good.Header+"\n", good.Signature)
	f.Add("e30", "")
	f.Add(base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"ES256","kid":"first","typ":"JWT","jku":"x"}`)), good.Signature)
	f.Fuzz(func(t *testing.T, header, signature string) {
		text, keyID, err := assemble(&externaljwtv1.SignJWTResponse{Header: header, Signature: signature}, claims, set)
		if err != nil {
			if text != "" || keyID != "" {
				t.Errorf("%q with %v", text, err)
			}
			return
		}
		parsed, err := jose.ParseSignedCompact(text, []jose.SignatureAlgorithm{jose.ES256})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := parsed.Verify(es256().Public().Key()); err != nil {
			t.Error(err)
		}
		decoded, err := base64.RawURLEncoding.DecodeString(header)
		var members map[string]any
		if err := errors.Join(err, json.Unmarshal(decoded, &members)); err != nil || len(members) != 3 || keyID != "first" {
			t.Errorf("header %s: %v", decoded, err)
		}
	})
}

// FuzzKeys reads answers to FetchKeys.
func FuzzKeys(f *testing.F) {
	for _, key := range []*signingkey.PrivateKey{es256(), rs256()} {
		k := published("first", key)
		f.Add(k.KeyId, k.Key, false, int64(1), int64(60))
	}
	f.Add("", []byte(nil), true, int64(-1<<63), int64(1<<63-1))
	f.Fuzz(func(t *testing.T, name string, der []byte, exclude bool, seconds, hint int64) {
		answer := &externaljwtv1.FetchKeysResponse{
			Keys:          []*externaljwtv1.Key{{KeyId: name, Key: der, ExcludeFromOidcDiscovery: exclude}, published("good", es256())},
			DataTimestamp: &timestamppb.Timestamp{Seconds: seconds}, RefreshHintSeconds: hint,
		}
		now := time.Now()
		got, err := keysOf(answer, now, time.Second)
		if err != nil {
			return
		}
		published := 2
		if exclude {
			published = 1
		}
		key := got.set.Keys()[0]
		if len(got.set.Published()) != published || key.ID() != name || len(name) > maxKeyID || got.next.Before(now) || got.next.Sub(now) > time.Hour {
			t.Errorf("accepted %v", got)
		}
		if _, err := signingkey.ParseJWKS(got.set.JWKS()); err != nil {
			t.Error(fmt.Errorf("published %s: %w", got.set.JWKS(), err))
		}
	})
}
