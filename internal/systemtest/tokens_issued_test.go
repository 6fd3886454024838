// Promise: a token carries the requested identity, and a request for another one is refused.

package systemtest

import (
	"encoding/base64"
	"net/http"
	"strings"
	"testing"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const whoAmIPath = "/apis/authentication.k8s.io/v1/selfsubjectreviews"

func TestTokenIdentity(t *testing.T) {
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
		t.Errorf("token of an absent account: %s", got)
	}
	if got := admin.do(t, http.MethodPost, "/api/v1/namespaces/"+namespace+"/pods/p/binding", `{"metadata":{"name":"p","uid":"other"},"target":{"kind":"Node","name":"n"}}`); got.code != http.StatusConflict {
		t.Errorf("binding of a pod of another UID: %s, want 409", got)
	}
	dry := &authenticationv1.TokenRequest{}
	admin.must(t, http.MethodPost, path+"?dryRun=All", `{}`).decode(t, dry)
	if dry.Status.Token != "" {
		t.Error("a dry run issued a token")
	}
}

// webSocketProtocol returns the WebSocket subprotocol with which a browser presents a token.
func webSocketProtocol(token string) string {
	return "base64url.bearer.authorization.k8s.io." + base64.RawURLEncoding.EncodeToString([]byte(token))
}

// TestTokenAsWebSocketSubprotocol presents a token as a WebSocket subprotocol, because a browser cannot set headers there. The answer must
// not repeat the token.
func TestTokenAsWebSocketSubprotocol(t *testing.T) {
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
