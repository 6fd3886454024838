package systemtest

import (
	"encoding/base64"
	"math/rand/v2"
	"net/http"
	"strings"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	"lanyard.dev/internal/signingkey"
	"lanyard.dev/lanyardtest"
)

const whoAmIPath = "/apis/authentication.k8s.io/v1/selfsubjectreviews"

// badTokens are the kinds of token that must not hold, by name.
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
		"HS256":                  f.keyed(plain),
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
	for name, text := range goneTokens(t, a, namespace) {
		bad[name] = text
	}
	return bad
}

// goneTokens are good tokens of which something they hang on is gone.
func goneTokens(t *testing.T, a *lanyardtest.Authority, namespace string) map[string]string {
	t.Helper()
	core := a.Client().CoreV1()
	a.CreateServiceAccount(t, namespace, "bound")
	gone := map[string]string{}
	bound := func(kind, name string) string {
		return a.TokenFor(t, namespace, "bound", authenticationv1.TokenRequestSpec{
			BoundObjectRef: &authenticationv1.BoundObjectReference{APIVersion: "v1", Kind: kind, Name: name},
		})
	}
	noErr := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	pod := podOn("")
	pod.Spec.ServiceAccountName = "bound"
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "s"}}
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: namespace + "-n"}}
	for _, again := range []bool{false, true} {
		suffix := map[bool]string{false: " deleted", true: " made anew"}[again]
		_, err := core.Pods(namespace).Create(t.Context(), pod, metav1.CreateOptions{})
		noErr(err)
		gone["pod"+suffix] = bound("Pod", "p")
		noErr(core.Pods(namespace).Delete(t.Context(), "p", metav1.DeleteOptions{}))
		_, err = core.Secrets(namespace).Create(t.Context(), secret, metav1.CreateOptions{})
		noErr(err)
		gone["secret"+suffix] = bound("Secret", "s")
		noErr(core.Secrets(namespace).Delete(t.Context(), "s", metav1.DeleteOptions{}))
		_, err = core.Nodes().Create(t.Context(), node, metav1.CreateOptions{})
		noErr(err)
		gone["node"+suffix] = bound("Node", node.Name)
		noErr(core.Nodes().Delete(t.Context(), node.Name, metav1.DeleteOptions{}))
		a.CreateServiceAccount(t, namespace, "brief")
		gone["account"+suffix] = a.Token(t, namespace, "brief")
		noErr(core.ServiceAccounts(namespace).Delete(t.Context(), "brief", metav1.DeleteOptions{}))
	}
	// The second round made what the first round's tokens named; now what the second's name is made too.
	_, err := core.Pods(namespace).Create(t.Context(), pod, metav1.CreateOptions{})
	noErr(err)
	_, err = core.Secrets(namespace).Create(t.Context(), secret, metav1.CreateOptions{})
	noErr(err)
	_, err = core.Nodes().Create(t.Context(), node, metav1.CreateOptions{})
	noErr(err)
	a.CreateServiceAccount(t, namespace, "brief")
	return gone
}

func TestBadTokensAreRefused(t *testing.T) {
	t.Parallel()
	a := authority(t)
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
				t.Errorf("bearer: the answer says more than it should: %s", got)
			}
			if strings.ContainsFunc(text, func(r rune) bool { return r > '~' }) {
				return // JSON cannot carry it unchanged
			}
			review := &authenticationv1.TokenReview{Spec: authenticationv1.TokenReviewSpec{Token: text}}
			got = admin.do(t, http.MethodPost, "/apis/authentication.k8s.io/v1/tokenreviews", review)
			got.decode(t, review)
			status := review.Status
			if got.code != http.StatusCreated || status.Authenticated || status.User.Username != "" || len(status.User.Groups) > 0 || len(status.Audiences) > 0 {
				t.Errorf("review: %s", got)
			}
			harmless(t, status.Error, text)
		})
	}
}

// harmless checks that an error text shows nothing of the token.
func harmless(t *testing.T, text, bearer string) {
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

// TestGoodTokensHold keeps the test above from passing on a server that refuses everything.
func TestGoodTokensHold(t *testing.T) {
	t.Parallel()
	a := authority(t)
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

func TestIdentityOfAToken(t *testing.T) {
	t.Parallel()
	a := authority(t)
	namespace, client := a.Namespace(t), a.Client()
	account := a.CreateServiceAccount(t, namespace, "cart")
	node, err := client.CoreV1().Nodes().Create(t.Context(), &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: namespace}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	pod := podOn(node.Name)
	pod.Spec.ServiceAccountName = "cart"
	if pod, err = client.CoreV1().Pods(namespace).Create(t.Context(), pod, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	text := a.TokenFor(t, namespace, "cart", authenticationv1.TokenRequestSpec{
		Audiences:      []string{a.URL(), "vault"},
		BoundObjectRef: &authenticationv1.BoundObjectReference{APIVersion: "v1", Kind: "Pod", Name: "p", UID: pod.UID},
	})
	review := &authenticationv1.TokenReview{Spec: authenticationv1.TokenReviewSpec{Token: text, Audiences: []string{"vault", "other"}}}
	review, err = client.AuthenticationV1().TokenReviews().Create(t.Context(), review, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	user := review.Status.User
	if !review.Status.Authenticated || strings.Join(review.Status.Audiences, " ") != "vault" || user.UID != string(account.UID) ||
		user.Username != "system:serviceaccount:"+namespace+":cart" {
		t.Errorf("review: %+v", review.Status)
	}
	if got, want := strings.Join(user.Groups, " "), "system:serviceaccounts system:serviceaccounts:"+namespace; !strings.HasPrefix(got, want) {
		t.Errorf("groups %q, want %q", got, want)
	}
	for key, want := range map[string]string{"pod-name": "p", "pod-uid": string(pod.UID), "node-name": node.Name, "node-uid": string(node.UID)} {
		if got := user.Extra["authentication.kubernetes.io/"+key]; len(got) != 1 || got[0] != want {
			t.Errorf("extra %s: %v, want %s", key, got, want)
		}
	}
	if got := user.Extra["authentication.kubernetes.io/credential-id"]; len(got) != 1 || !strings.HasPrefix(got[0], "JTI=") {
		t.Errorf("credential id: %v", got)
	}
}

// TestTokenOfAPodThatShutsDown: while a pod ends in its own time its token holds, and not a moment longer.
func TestTokenOfAPodThatShutsDown(t *testing.T) {
	t.Parallel()
	a := authority(t)
	namespace := a.Namespace(t)
	pods := a.Client().CoreV1().Pods(namespace)
	if _, err := pods.Create(t.Context(), podOn("n"), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	caller := bearer(t, a.Config(), a.TokenFor(t, namespace, "default", authenticationv1.TokenRequestSpec{
		BoundObjectRef: &authenticationv1.BoundObjectReference{APIVersion: "v1", Kind: "Pod", Name: "p"},
	}))
	for _, step := range []struct {
		grace int64
		code  int
	}{{30, http.StatusCreated}, {0, http.StatusUnauthorized}} {
		if err := pods.Delete(t.Context(), "p", metav1.DeleteOptions{GracePeriodSeconds: ptr.To(step.grace)}); err != nil {
			t.Fatal(err)
		}
		if got := caller.do(t, http.MethodPost, whoAmIPath, `{}`); got.code != step.code {
			t.Errorf("after a delete with %d seconds: %s, want %d", step.grace, got, step.code)
		}
	}
}

// TestAccountInDeletionGetsNoTokens: an account that a finalizer keeps gets no new tokens, by no way, and those it has
// hold for the last minute.
func TestAccountInDeletionGetsNoTokens(t *testing.T) {
	t.Parallel()
	a := authority(t)
	namespace := a.Namespace(t)
	accounts := a.Client().CoreV1().ServiceAccounts(namespace)
	meta := metav1.ObjectMeta{Name: "leaving", Finalizers: []string{"example.com/hold"}}
	if _, err := accounts.Create(t.Context(), &corev1.ServiceAccount{ObjectMeta: meta}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	caller := bearer(t, a.Config(), a.Token(t, namespace, "leaving"))
	if err := accounts.Delete(t.Context(), "leaving", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	_, err := accounts.CreateToken(t.Context(), "leaving", &authenticationv1.TokenRequest{}, metav1.CreateOptions{})
	if !apierrors.IsConflict(err) || !strings.Contains(err.Error(), "is being deleted") {
		t.Errorf("token of an account in deletion: %v, want a conflict", err)
	}
	caller.must(t, http.MethodPost, whoAmIPath, `{}`)
	if _, err := accounts.Patch(t.Context(), "leaving", types.MergePatchType, []byte(`{"metadata":{"finalizers":null}}`), metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
	if got := caller.do(t, http.MethodPost, whoAmIPath, `{}`); got.code != http.StatusUnauthorized {
		t.Errorf("after the finalizer is gone: %s, want 401", got)
	}
}

func TestTokenRequestsAreChecked(t *testing.T) {
	t.Parallel()
	a := authority(t)
	namespace, admin := a.Namespace(t), callerFor(t, a.Config())
	a.CreateServiceAccount(t, namespace, "cart")
	if _, err := a.Client().CoreV1().Pods(namespace).Create(t.Context(), podOn(""), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	path := "/api/v1/namespaces/" + namespace + "/serviceaccounts/cart/token"
	ref := func(kind, name, uid string) string {
		return `{"spec":{"boundObjectRef":{"apiVersion":"v1","kind":"` + kind + `","name":"` + name + `","uid":"` + uid + `"}}}`
	}
	for body, want := range map[string]struct {
		code int
		text string
	}{
		`{"spec":{"expirationSeconds":599}}`:        {422, "may not specify a duration less than 10 minutes"},
		`{"spec":{"expirationSeconds":4294967297}}`: {422, "may not specify a duration larger than 2^32 seconds"},
		`{"spec":{"audiences":[""]}}`:               {422, "spec.audiences[0]"},
		ref("Pod", "none", ""):                      {404, `pods "none" not found`},
		ref("Secret", "none", ""):                   {404, `secrets "none" not found`},
		ref("Node", "none", ""):                     {404, `nodes "none" not found`},
		ref("ConfigMap", "none", ""):                {400, "cannot bind token"},
		ref("Pod", "p", ""):                         {400, "cannot bind token for serviceaccount \"cart\" to pod running with different serviceaccount name"},
		ref("Pod", "p", "other"):                    {409, "does not match the UID in record"},
		`{"metadata":{"name":"other"}}`:             {422, "metadata.name"},
		`{"metadata":{"uid":"other"}}`:              {409, "does not match the UID of the service account"},
		`{"metadata":{"namespace":"other"}}`:        {400, "namespace"},
		`{"spec":{"expirationSeconds":"600"}}`:      {400, "cannot be handled as a TokenRequest"},
	} {
		if got := admin.do(t, http.MethodPost, path, body); got.code != want.code || !strings.Contains(got.status(t).Message, want.text) {
			t.Errorf("%s: %s, want %d with %q", body, got, want.code, want.text)
		}
	}
	if got := admin.do(t, http.MethodPost, strings.Replace(path, "cart", "none", 1), `{}`); got.code != http.StatusNotFound || !strings.Contains(got.status(t).Message, `serviceaccounts "none" not found`) {
		t.Errorf("token of no account: %s", got)
	}
	if got := admin.do(t, http.MethodPost, "/api/v1/namespaces/"+namespace+"/pods/p/binding", `{"metadata":{"name":"p","uid":"other"},"target":{"kind":"Node","name":"n"}}`); got.code != http.StatusConflict {
		t.Errorf("binding of a pod of another UID: %s, want 409", got)
	}
	dry := &authenticationv1.TokenRequest{}
	admin.must(t, http.MethodPost, path+"?dryRun=All", `{}`).decode(t, dry)
	if dry.Status.Token != "" {
		t.Error("a dry run gave a token")
	}
}

// webSocketProtocol is the subprotocol by which a browser presents a token.
func webSocketProtocol(token string) string {
	return "base64url.bearer.authorization.k8s.io." + base64.RawURLEncoding.EncodeToString([]byte(token))
}

// TestBrowsersWatch: a browser, which cannot set headers on a WebSocket, presents its token as a subprotocol, and the
// token does not come back.
func TestBrowsersWatch(t *testing.T) {
	t.Parallel()
	a := authority(t)
	namespace := a.Namespace(t)
	a.CreateServiceAccount(t, namespace, "page")
	a.Grant(t, namespace, "page", rbacRule("", "configmaps", "watch"))
	good := a.Token(t, namespace, "page")
	browser := overHTTP1(t, a.Config())
	for token, want := range map[string]int{good: http.StatusSwitchingProtocols, good[:len(good)-4]: http.StatusUnauthorized, "": http.StatusUnauthorized} {
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, browser.url+"/api/v1/namespaces/"+namespace+"/configmaps?watch=true", nil)
		if err != nil {
			t.Fatal(err)
		}
		for name, value := range map[string]string{
			"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": "MDEyMzQ1Njc4OWFiY2RlZg==",
			"Origin": browser.url, "Sec-WebSocket-Protocol": webSocketProtocol(token) + ", v1",
		} {
			request.Header.Set(name, value)
		}
		response, err := browser.client.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		_ = response.Body.Close()
		if chosen := response.Header.Get("Sec-WebSocket-Protocol"); response.StatusCode != want || strings.Contains(chosen, "bearer") {
			t.Errorf("with a token of %d bytes: %s, subprotocol %q; want %d", len(token), response.Status, chosen, want)
		}
	}
}
