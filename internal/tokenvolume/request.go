package tokenvolume

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"

	"lanyard.dev/internal/token"
)

// Request requests a token of a service account from the authority. It returns the request with its status.
type Request func(ctx context.Context, namespace, account string, request *authenticationv1.TokenRequest) (*authenticationv1.TokenRequest, error)

// RequestBy returns a Request that uses a client.
func RequestBy(client typedcorev1.ServiceAccountsGetter) Request {
	return func(ctx context.Context, namespace, account string, request *authenticationv1.TokenRequest) (*authenticationv1.TokenRequest, error) {
		return client.ServiceAccounts(namespace).CreateToken(ctx, account, request, metav1.CreateOptions{})
	}
}

// tokenSpec identifies a token of a pod. Volumes of a pod with the same tokenSpec share one token.
type tokenSpec struct {
	pod      types.UID
	audience string // "" is the authority's default
	lifetime time.Duration
}

func specOf(pod *corev1.Pod, source *corev1.ServiceAccountTokenProjection) tokenSpec {
	lifetime := token.DefaultLifetime
	if source.ExpirationSeconds != nil {
		lifetime = time.Duration(min(*source.ExpirationSeconds, int64(token.MaxLifetime/time.Second))) * time.Second
	}
	return tokenSpec{pod.UID, source.Audience, lifetime}
}

// podRef is the pod of a token.
type podRef struct{ namespace, name, account string }

func podRefOf(pod *corev1.Pod) podRef {
	account := pod.Spec.ServiceAccountName
	if account == "" {
		account = "default"
	}
	return podRef{pod.Namespace, pod.Name, account}
}

func tokenRequest(w tokenSpec, b podRef) *authenticationv1.TokenRequest {
	seconds := int64(w.lifetime / time.Second)
	request := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{
		ExpirationSeconds: &seconds,
		BoundObjectRef:    &authenticationv1.BoundObjectReference{APIVersion: "v1", Kind: "Pod", Name: b.name, UID: w.pod},
	}}
	if w.audience != "" {
		request.Spec.Audiences = []string{w.audience}
	}
	return request
}

// issuedToken is a token with its times by this machine's clock.
type issuedToken struct {
	text            string
	issued, expires time.Time
	traits
}

// parseAnswer reads the answer to a request that was sent at the given time. The token's lifetime is the lifetime in the answer,
// but it begins when the request was sent, so that the clocks of authority and machine need not agree.
func parseAnswer(answer *authenticationv1.TokenRequest, sent time.Time) (issuedToken, error) {
	if answer.Status.Token == "" || len(answer.Status.Token) > token.MaxSize {
		return issuedToken{}, errors.New("the authority's answer holds no token")
	}
	lifetime := lifetimeOf(answer, sent)
	if lifetime < time.Second {
		return issuedToken{}, fmt.Errorf("the authority's token lives for %v", lifetime)
	}
	g := issuedToken{text: answer.Status.Token, issued: sent, expires: sent.Add(lifetime)}
	if decoded, err := token.Decode(g.text); err == nil {
		g.traits = traitsOf(decoded)
	}
	return g, nil
}

// lifetimeOf returns the shorter of the lifetime in the token's claims and the lifetime in the answer's spec. If both are
// missing, it takes the expiration time in the answer's status, for which the two clocks have to agree.
func lifetimeOf(answer *authenticationv1.TokenRequest, sent time.Time) time.Duration {
	var lifetime time.Duration
	if seconds := answer.Spec.ExpirationSeconds; seconds != nil {
		lifetime = time.Duration(min(*seconds, int64(token.MaxLifetime/time.Second))) * time.Second
	}
	if decoded, err := token.Decode(answer.Status.Token); err == nil && decoded.Claims != nil {
		if c := decoded.Claims; c.IssuedAt > 0 && c.Expiry > 0 {
			own := time.Duration(c.Expiry-c.IssuedAt) * time.Second
			if lifetime == 0 || own < lifetime {
				lifetime = own
			}
		}
	}
	if lifetime == 0 {
		lifetime = answer.Status.ExpirationTimestamp.Sub(sent)
	}
	return lifetime
}

// skew is how far in the future, by this machine's clock, a token may have been issued that is taken over.
const skew = time.Minute

// takeOver reads a token that an earlier agent has left. It returns false unless the token was issued to this pod with this
// audience and is still valid. A lifetime shorter than the requested one is accepted, because the authority may limit it. A
// longer one is not: the authority never grants that.
func takeOver(text string, w tokenSpec, b podRef, now time.Time) (issuedToken, bool) {
	decoded, err := token.Decode(text)
	if err != nil || decoded.Claims == nil || decoded.Claims.Kubernetes == nil || decoded.Claims.Kubernetes.Pod == nil {
		return issuedToken{}, false
	}
	c := decoded.Claims
	k := c.Kubernetes
	if k.Pod.UID != string(w.pod) || k.Pod.Name != b.name || k.Namespace != b.namespace || k.ServiceAccount.Name != b.account {
		return issuedToken{}, false
	}
	if w.audience != "" && (len(c.Audience) != 1 || c.Audience[0] != w.audience) {
		return issuedToken{}, false
	}
	issued, expires := time.Unix(c.IssuedAt, 0), c.ExpiresAt()
	lifetime := expires.Sub(issued)
	if c.IssuedAt == 0 || lifetime <= 0 || lifetime > w.lifetime || issued.After(now.Add(skew)) || !now.Before(expires) {
		return issuedToken{}, false
	}
	return issuedToken{text, issued, expires, traitsOf(decoded)}, true
}

// isPodGone reports whether an error means that the pod no longer exists. No later pod has its UID, so its token is never
// issued again. A Forbidden error does not mean that: an authority that has just started may not know the pod yet.
func isPodGone(err error, pod string) bool {
	var status apierrors.APIStatus
	if !errors.As(err, &status) || !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
		return false
	}
	details := status.Status().Details
	if details == nil || details.Name != pod {
		return false
	}
	kind := strings.ToLower(details.Kind)
	return kind == "pods" || kind == "pod"
}
