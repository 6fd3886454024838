// Promise: no forged, changed, expired or orphaned token is accepted.

package systemtest

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"math/rand/v2"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	clocktesting "k8s.io/utils/clock/testing"

	"lanyard.dev/internal/signingkey"
	"lanyard.dev/internal/token"
	"lanyard.dev/lanyardtest"
)

// badTokens returns one token of each kind that must be refused, by a name.
func badTokens(t *testing.T, a *lanyardtest.Authority) map[string]string {
	t.Helper()
	namespace := a.Namespace(t)
	f := forgerAt(t, a, namespace, "victim")
	other, err := signingkey.Generate(signingkey.ES256)
	if err != nil {
		t.Fatal(err)
	}
	foreign, stranger, noSuchUID := f, f, f
	foreign.issuer = "https://elsewhere.example"
	stranger.key = other
	noSuchUID.request.ServiceAccount.UID = "00000000-0000-0000-0000-000000000000"

	good, plain := f.issued(0), f.claims(func(map[string]any) {})
	parts, second := strings.Split(good, "."), strings.Split(f.issued(0), ".")
	header := `{"alg":"ES256","kid":"` + f.key.ID() + `"}`
	with := func(change func(map[string]any)) string { return f.signed(header, f.claims(change)) }
	junk := make([]byte, 300)
	source := rand.NewChaCha8([32]byte{1})
	_, _ = source.Read(junk)

	bad := map[string]string{
		"alg none":               segment(`{"alg":"none"}`) + "." + segment(plain) + ".",
		"alg None, kid":          segment(`{"alg":"None","kid":"`+f.key.ID()+`"}`) + "." + segment(plain) + ".",
		"alg none, signature":    segment(`{"alg":"none"}`) + "." + segment(plain) + "." + parts[2],
		"HS256":                  f.signedByHMAC(plain),
		"alg of another curve":   f.signed(`{"alg":"ES384","kid":"`+f.key.ID()+`"}`, plain),
		"alg RS256":              f.signed(`{"alg":"RS256","kid":"`+f.key.ID()+`"}`, plain),
		"no alg":                 f.signed(`{"kid":"`+f.key.ID()+`"}`, plain),
		"swapped payload":        parts[0] + "." + second[1] + "." + parts[2],
		"no signature":           parts[0] + "." + parts[1] + ".",
		"short signature":        good[:len(good)-4],
		"wrong kid":              f.signed(`{"alg":"ES256","kid":"nobody"}`, plain),
		"another's key":          stranger.issued(0),
		"another's key, our kid": stranger.signed(header, plain),
		"key in the header":      stranger.signed(`{"alg":"ES256","jwk":{"kty":"EC","crv":"P-256","x":"AA","y":"AA"}}`, plain),
		"critical extension":     f.signed(`{"alg":"ES256","kid":"`+f.key.ID()+`","crit":["b64"],"b64":false}`, plain),
		"foreign issuer":         foreign.issued(0),
		"expired":                f.issued(-2 * time.Hour),
		"expired a second ago":   f.issued(-time.Hour - time.Second),
		"not yet valid":          f.issued(2 * time.Hour),
		"no expiry":              with(func(c map[string]any) { delete(c, "exp") }),
		"no audience":            with(func(c map[string]any) { delete(c, "aud") }),
		"other audience":         with(func(c map[string]any) { c["aud"] = []string{"vault"} }),
		"other subject":          with(func(c map[string]any) { c["sub"] = "system:serviceaccount:kube-system:root" }),
		"a user's subject":       with(func(c map[string]any) { c["sub"] = "system:admin" }),
		"no kubernetes claim":    with(func(c map[string]any) { delete(c, "kubernetes.io") }),
		"unknown UID":            noSuchUID.issued(0),
		"oversize":               f.signed(header, f.claims(func(c map[string]any) { c["pad"] = strings.Repeat("x", 20_000) })),
		"binary junk":            strings.Map(func(r rune) rune { return max(r, ' ') }, string(junk)),
		"dots":                   strings.Repeat(".", 5000),
		"five segments":          good + ".x.y",
		"no segment":             "x",
		"deep JSON":              segment(strings.Repeat("[", 5000)) + "." + parts[1] + "." + parts[2],
		"deep claims":            f.signed(header, `{"iss":`+strings.Repeat("[", 5000)+strings.Repeat("]", 5000)+`}`),
		"space in a segment":     parts[0] + "." + parts[1] + "." + parts[2][:10] + " " + parts[2][10:],
		"padding":                good + "==",
	}
	for name, text := range orphanedTokens(t, a, namespace) {
		bad[name] = text
	}
	return bad
}

// orphanedTokens returns valid tokens whose account or bound object was deleted, or deleted and created again.
func orphanedTokens(t *testing.T, a *lanyardtest.Authority, namespace string) map[string]string {
	t.Helper()
	core := a.Client().CoreV1()
	a.CreateServiceAccount(t, namespace, "bound")
	gone := map[string]string{}
	bound := func(kind, name string) string {
		return a.TokenFor(t, namespace, "bound", authenticationv1.TokenRequestSpec{
			BoundObjectRef: &authenticationv1.BoundObjectReference{APIVersion: "v1", Kind: kind, Name: name},
		})
	}
	pod := podOn("")
	pod.Spec.ServiceAccountName = "bound"
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "s"}}
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: namespace + "-n"}}
	for _, again := range []bool{false, true} {
		suffix := map[bool]string{false: " deleted", true: " created again"}[again]
		_, err := core.Pods(namespace).Create(t.Context(), pod, metav1.CreateOptions{})
		must(t, err)
		gone["pod"+suffix] = bound("Pod", "p")
		must(t, core.Pods(namespace).Delete(t.Context(), "p", metav1.DeleteOptions{}))
		_, err = core.Secrets(namespace).Create(t.Context(), secret, metav1.CreateOptions{})
		must(t, err)
		gone["secret"+suffix] = bound("Secret", "s")
		must(t, core.Secrets(namespace).Delete(t.Context(), "s", metav1.DeleteOptions{}))
		_, err = core.Nodes().Create(t.Context(), node, metav1.CreateOptions{})
		must(t, err)
		gone["node"+suffix] = bound("Node", node.Name)
		must(t, core.Nodes().Delete(t.Context(), node.Name, metav1.DeleteOptions{}))
		a.CreateServiceAccount(t, namespace, "brief")
		gone["account"+suffix] = a.Token(t, namespace, "brief")
		must(t, core.ServiceAccounts(namespace).Delete(t.Context(), "brief", metav1.DeleteOptions{}))
	}
	// The second round has created the objects of the first round's tokens again. Now the objects of the second round's tokens are
	// created again too.
	_, err := core.Pods(namespace).Create(t.Context(), pod, metav1.CreateOptions{})
	must(t, err)
	_, err = core.Secrets(namespace).Create(t.Context(), secret, metav1.CreateOptions{})
	must(t, err)
	_, err = core.Nodes().Create(t.Context(), node, metav1.CreateOptions{})
	must(t, err)
	a.CreateServiceAccount(t, namespace, "brief")
	return gone
}

// forgeable starts an authority that accepts tokens without a record, so that forged tokens are refused for what is wrong with
// them.
func forgeable(t testing.TB) *lanyardtest.Authority {
	t.Helper()
	return lanyardtest.StartWith(t, lanyardtest.Options{AcceptUnrecordedTokens: true})
}

func TestBadTokensAreRefused(t *testing.T) {
	t.Parallel()
	a := forgeable(t)
	anyone, admin := overHTTP1(t, a.Config()), callerFor(t, a.Config())
	for name, text := range badTokens(t, a) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			started := time.Now()
			got := anyone.do(t, http.MethodPost, whoAmIPath, `{}`, "Authorization", "Bearer "+text)
			if took := time.Since(started); got.code != http.StatusUnauthorized || took > 10*time.Second {
				t.Errorf("bearer: %s after %v", got, took)
			}
			if s := got.status(t); s.Message != "Unauthorized" || s.Reason != metav1.StatusReasonUnauthorized {
				t.Errorf("bearer: the answer is not a plain Unauthorized: %s", got)
			}
			if strings.ContainsFunc(text, func(r rune) bool { return r > '~' }) {
				return // JSON cannot represent it
			}
			review := &authenticationv1.TokenReview{Spec: authenticationv1.TokenReviewSpec{Token: text}}
			got = admin.do(t, http.MethodPost, "/apis/authentication.k8s.io/v1/tokenreviews", review)
			got.decode(t, review)
			status := review.Status
			if got.code != http.StatusCreated || status.Authenticated || status.User.Username != "" || len(status.User.Groups) > 0 || len(status.Audiences) > 0 {
				t.Errorf("review: %s", got)
			}
			checkHarmless(t, status.Error, text)
		})
	}
}

// checkHarmless checks that an error text is short and has no part of the token.
func checkHarmless(t *testing.T, text, bearer string) {
	t.Helper()
	if len(text) > 500 {
		t.Errorf("the error has %d bytes: %.100s", len(text), text)
	}
	for _, part := range strings.Split(bearer, ".") {
		if len(part) > 8 && strings.Contains(text, part[:8]) {
			t.Errorf("the error shows the token: %.300s", text)
		}
	}
}

// TestValidTokensAreAccepted checks that tokens of the same forger are accepted if they are valid. Otherwise TestBadTokensAreRefused
// would pass on a server that refuses everything.
func TestValidTokensAreAccepted(t *testing.T) {
	t.Parallel()
	a := forgeable(t)
	namespace := a.Namespace(t)
	f := forgerAt(t, a, namespace, "victim")
	plain := f.claims(func(map[string]any) {})
	for name, text := range map[string]string{
		"forged":          f.issued(0),
		"old":             f.issued(-50 * time.Minute),
		"signed by hand":  f.signed(`{"alg":"ES256","kid":"`+f.key.ID()+`"}`, plain),
		"a string as aud": f.signed(`{"alg":"ES256","kid":"`+f.key.ID()+`"}`, f.claims(func(c map[string]any) { c["aud"] = a.URL() })),
	} {
		var review authenticationv1.SelfSubjectReview
		bearer(t, a.Config(), text).must(t, http.MethodPost, whoAmIPath, `{}`).decode(t, &review)
		if got := review.Status.UserInfo.Username; got != "system:serviceaccount:"+namespace+":victim" {
			t.Errorf("%s: user %q", name, got)
		}
	}
}

// TestUnrecordedTokenIsRefused signs a token with the authority's own key, as whoever has stolen the key can. The authority did
// not issue it, so it is refused.
func TestUnrecordedTokenIsRefused(t *testing.T) {
	t.Parallel()
	a := authority(t)
	namespace := a.Namespace(t)
	f := forgerAt(t, a, namespace, "victim")
	text := f.issued(0)
	if got := overHTTP1(t, a.Config()).do(t, http.MethodPost, whoAmIPath, `{}`, "Authorization", "Bearer "+text); got.code != http.StatusUnauthorized {
		t.Errorf("bearer: %s", got)
	}
	review := &authenticationv1.TokenReview{Spec: authenticationv1.TokenReviewSpec{Token: text}}
	callerFor(t, a.Config()).must(t, http.MethodPost, reviewPath, review).decode(t, review)
	if review.Status.Authenticated || review.Status.Error != token.ErrUnrecorded.Error() {
		t.Errorf("review: %+v, want the error %q", review.Status, token.ErrUnrecorded)
	}
	issued := a.Token(t, namespace, "victim")
	bearer(t, a.Config(), issued).must(t, http.MethodPost, whoAmIPath, `{}`)

	// Tokens with the ID of one that was issued: the same claims with another signature, and other claims.
	for _, change := range []struct{ from, to string }{{"", ""}, {"\"exp\":1", "\"exp\":2"}} {
		text := f.copied(issued, change.from, change.to)
		if got := overHTTP1(t, a.Config()).do(t, http.MethodPost, whoAmIPath, `{}`, "Authorization", "Bearer "+text); got.code != http.StatusUnauthorized {
			t.Errorf("a copy of the ID with %q: %s", change.to, got)
		}
	}
	bearer(t, a.Config(), issued).must(t, http.MethodPost, whoAmIPath, `{}`)
}

// forger makes tokens that the API does not issue.
type forger struct {
	t       testing.TB
	key     *signingkey.PrivateKey
	issuer  string
	request token.Request
}

// forgerAt returns a forger with the authority's own key, for a new account.
func forgerAt(t testing.TB, a *lanyardtest.Authority, namespace, name string) forger {
	t.Helper()
	key, err := signingkey.LoadPrivate(filepath.Join(a.DataDir(), "sa.key"))
	if err != nil {
		t.Fatal(err)
	}
	account := a.CreateServiceAccount(t, namespace, name)
	return forger{t: t, key: key, issuer: a.URL(), request: token.Request{
		Namespace: namespace, ServiceAccount: token.Ref{Name: name, UID: string(account.UID)},
		Audiences: []string{a.URL()}, Lifetime: time.Hour,
	}}
}

// copied returns a token with the header and the claims of another one, apart from a change of their JSON, and a new signature.
func (f forger) copied(text, from, to string) string {
	f.t.Helper()
	parts := strings.Split(text, ".")
	claims, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		f.t.Fatal(err)
	}
	changed := strings.Replace(string(claims), from, to, 1)
	if from != to && changed == string(claims) {
		f.t.Fatalf("the claims %s lack %s", claims, from)
	}
	signed := parts[0] + "." + base64.RawURLEncoding.EncodeToString([]byte(changed))
	signature, err := f.key.Sign([]byte(signed))
	if err != nil {
		f.t.Fatal(err)
	}
	return signed + "." + base64.RawURLEncoding.EncodeToString(signature)
}

// issued returns the token that an authority with the key would issue at a time relative to now.
func (f forger) issued(when time.Duration) string {
	f.t.Helper()
	keys, err := signingkey.NewSet(f.key)
	if err != nil {
		f.t.Fatal(err)
	}
	issuer, err := token.NewIssuer(f.issuer, token.NewKeySigner(keys), clocktesting.NewFakePassiveClock(time.Now().Add(when)))
	if err != nil {
		f.t.Fatal(err)
	}
	text, _, err := issuer.Issue(f.t.Context(), f.request)
	if err != nil {
		f.t.Fatal(err)
	}
	return text
}

// signed returns a header and a payload with a valid signature.
func (f forger) signed(header, payload string) string {
	f.t.Helper()
	input := segment(header) + "." + segment(payload)
	signature, err := f.key.Sign([]byte(input))
	if err != nil {
		f.t.Fatal(err)
	}
	return input + "." + segment(string(signature))
}

// signedByHMAC returns the payload with an HMAC whose secret is the public key. A verifier that trusts the algorithm in the
// header would accept it.
func (f forger) signedByHMAC(payload string) string {
	f.t.Helper()
	der, err := x509.MarshalPKIXPublicKey(f.key.Public().Key())
	if err != nil {
		f.t.Fatal(err)
	}
	input := segment(`{"alg":"HS256","kid":"`+f.key.ID()+`"}`) + "." + segment(payload)
	mac := hmac.New(sha256.New, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
	mac.Write([]byte(input))
	return input + "." + segment(string(mac.Sum(nil)))
}

// claims returns the payload of a valid token after a change.
func (f forger) claims(change func(map[string]any)) string {
	f.t.Helper()
	payload, err := base64.RawURLEncoding.DecodeString(strings.Split(f.issued(0), ".")[1])
	if err != nil {
		f.t.Fatal(err)
	}
	var all map[string]any
	if err := json.Unmarshal(payload, &all); err != nil {
		f.t.Fatal(err)
	}
	change(all)
	return string(encode(f.t, all))
}

// segment returns a part of a token: base64url without padding.
func segment(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) }
