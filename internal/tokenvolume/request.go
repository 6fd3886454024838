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

// Request asks the authority for a token of an account and returns the request with its status filled in.
type Request func(ctx context.Context, namespace, account string, request *authenticationv1.TokenRequest) (*authenticationv1.TokenRequest, error)

// RequestBy asks with a client's credentials.
func RequestBy(client typedcorev1.ServiceAccountsGetter) Request {
	return func(ctx context.Context, namespace, account string, request *authenticationv1.TokenRequest) (*authenticationv1.TokenRequest, error) {
		return client.ServiceAccounts(namespace).CreateToken(ctx, account, request, metav1.CreateOptions{})
	}
}

// wanted is a token as a pod asks for it. Volumes of a pod that want the same share one.
type wanted struct {
	pod      types.UID
	audience string // "" leaves it to the authority
	lifetime time.Duration
}

func want(pod *corev1.Pod, source *corev1.ServiceAccountTokenProjection) wanted {
	lifetime := token.DefaultLifetime
	if source.ExpirationSeconds != nil {
		lifetime = time.Duration(min(*source.ExpirationSeconds, int64(token.MaxLifetime/time.Second))) * time.Second
	}
	return wanted{pod.UID, source.Audience, lifetime}
}

// bearer is the pod a token is for.
type bearer struct{ namespace, name, account string }

func bearerOf(pod *corev1.Pod) bearer {
	account := pod.Spec.ServiceAccountName
	if account == "" {
		account = "default"
	}
	return bearer{pod.Namespace, pod.Name, account}
}

func tokenRequest(w wanted, b bearer) *authenticationv1.TokenRequest {
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

// grant is a token and when it holds, by this machine's clock.
type grant struct {
	text            string
	issued, expires time.Time
	traits
}

// granted reads an answer to a request that was sent at the given time. How long the token lives is taken from the
// answer, when that begins from this machine's clock: then it does not matter what the authority's clock shows.
func granted(answer *authenticationv1.TokenRequest, sent time.Time) (grant, error) {
	if answer.Status.Token == "" || len(answer.Status.Token) > token.MaxSize {
		return grant{}, errors.New("the authority's answer holds no token")
	}
	lifetime := lifetimeOf(answer, sent)
	if lifetime < time.Second {
		return grant{}, fmt.Errorf("the authority's token lives for %v", lifetime)
	}
	g := grant{text: answer.Status.Token, issued: sent, expires: sent.Add(lifetime)}
	if decoded, err := token.Decode(g.text); err == nil {
		g.traits = traitsOf(decoded)
	}
	return g, nil
}

// lifetimeOf returns the shortest of what the token says itself and of what the authority made of the request. Only
// where neither is there do the two clocks have to agree.
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

// skew is how far ahead of this machine's clock a token may have been issued to be taken over.
const skew = time.Minute

// takeOver reads a token that an earlier agent left. It is of use if it was issued to this pod, for what is wanted, and
// still holds. A shorter life than asked for is what an authority with a limit grants; a longer one was never asked for.
func takeOver(text string, w wanted, b bearer, now time.Time) (grant, bool) {
	decoded, err := token.Decode(text)
	if err != nil || decoded.Claims == nil || decoded.Claims.Kubernetes == nil || decoded.Claims.Kubernetes.Pod == nil {
		return grant{}, false
	}
	c := decoded.Claims
	k := c.Kubernetes
	if k.Pod.UID != string(w.pod) || k.Pod.Name != b.name || k.Namespace != b.namespace || k.ServiceAccount.Name != b.account {
		return grant{}, false
	}
	if w.audience != "" && (len(c.Audience) != 1 || c.Audience[0] != w.audience) {
		return grant{}, false
	}
	issued, expires := time.Unix(c.IssuedAt, 0), c.ExpiresAt()
	lifetime := expires.Sub(issued)
	if c.IssuedAt == 0 || lifetime <= 0 || lifetime > w.lifetime || issued.After(now.Add(skew)) || !now.Before(expires) {
		return grant{}, false
	}
	return grant{text, issued, expires, traitsOf(decoded)}, true
}

// isOver reports whether an error says that the pod is no more. Its UID never comes back, so nor does its token.
// A refusal for want of permission is no such proof: an authority that has just started may not know the pod yet.
func isOver(err error, pod string) bool {
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
