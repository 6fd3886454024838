package tokenvolume

import (
	"context"
	"encoding/json"
	"strings"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	typedauthenticationv1 "k8s.io/client-go/kubernetes/typed/authentication/v1"
	"k8s.io/klog/v2"

	"lanyard.dev/internal/token"
)

const (
	// reviewEvery is how often one token is reviewed without a reason. Of the tokens that a node holds, most have the same key,
	// issuer and audience: when one of these is no longer accepted, the first refusal brings the others to a review.
	reviewEvery = 4 * time.Second
	// urgentSpacing is the least time between two reviews, and between two requests for tokens that replace refused ones.
	urgentSpacing = 10 * time.Millisecond
	// reviewTimeout bounds one review.
	reviewTimeout = 5 * time.Second
	// lastReviewRetry bounds the wait after a review without an answer, forbiddenRetry after one that the authority does not
	// allow this node.
	lastReviewRetry, forbiddenRetry = 15 * time.Second, 10 * time.Minute
	// youth is how long a token counts as new. Where one is refused that replaced a refused one, a new token is no remedy, and
	// the next comes after a wait that firstRenewal and lastRenewal bound.
	youth                     = time.Minute
	firstRenewal, lastRenewal = 30 * time.Second, 30 * time.Minute
)

// Review asks the authority whether it accepts a token for an audience, where "" stands for the authority's own. An error
// means that it did not answer.
type Review func(ctx context.Context, text, audience string) (accepted bool, err error)

// ReviewBy asks by TokenReview, with a client's credentials.
func ReviewBy(client typedauthenticationv1.TokenReviewsGetter) Review {
	return func(ctx context.Context, text, audience string) (bool, error) {
		review := &authenticationv1.TokenReview{Spec: authenticationv1.TokenReviewSpec{Token: text}}
		if audience != "" {
			review.Spec.Audiences = []string{audience}
		}
		answer, err := client.TokenReviews().Create(ctx, review, metav1.CreateOptions{})
		if err != nil {
			return false, err
		}
		return answer.Status.Authenticated, nil
	}
}

// traits are what a token has in common with others. When the authority ceases to accept one of them, it refuses all those
// tokens at once.
type traits struct{ key, issuer, account, node, audience string }

func traitsOf(decoded *token.Decoded) traits {
	var header struct {
		Key string `json:"kid"`
	}
	_ = json.Unmarshal(decoded.Header, &header) // a token without a key's name has none in common
	found := traits{key: header.Key}
	if c := decoded.Claims; c != nil {
		found.issuer, found.audience = c.Issuer, strings.Join(c.Audience, "\n")
		if c.Kubernetes != nil {
			found.account = c.Kubernetes.ServiceAccount.UID
			if node := c.Kubernetes.Node; node != nil {
				found.node = node.UID
			}
		}
	}
	return found
}

// sharesLost reports whether the token has a trait that old has and its replacement does not.
func (t traits) sharesLost(old, replacement traits) bool {
	lost := func(own, old, now string) bool { return own == old && old != now }
	return lost(t.key, old.key, replacement.key) || lost(t.issuer, old.issuer, replacement.issuer) ||
		lost(t.account, old.account, replacement.account) || lost(t.node, old.node, replacement.node) ||
		lost(t.audience, old.audience, replacement.audience)
}

// AccountChanged notes that a service account was created, changed or deleted. The tokens of an account that was deleted and
// created again are replaced at once.
func (t *Tokens) AccountChanged(namespace, name string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, h := range t.held {
		if h.namespace == namespace && h.account == name && h.text != "" && !h.over && t.isOfFormerAccount(h.grant, h.bearer) {
			t.refuse(h, "its service account was deleted and created again")
			h.next, h.failures, h.replacements = t.now(), 0, 0
			poke(t.wake) // it may have been refused already, and wait after failed requests
		}
	}
}

// isOfFormerAccount compares the account's UID in a token with that of the account as it is now known. t.mu is held.
func (t *Tokens) isOfFormerAccount(g grant, b bearer) bool {
	if t.config.Account == nil || g.account == "" {
		return false
	}
	now := t.config.Account(b.namespace, b.account)
	return now != "" && now != types.UID(g.account)
}

// refuse has a token replaced that the authority does not accept any more. t.mu is held.
func (t *Tokens) refuse(h *held, why string) {
	if h.refused {
		return
	}
	h.refused, h.suspect = true, false
	if !h.replaced || t.now().Sub(h.issued) > youth {
		h.replacements = 0
	}
	var wait time.Duration
	if h.replacements > 0 {
		wait = min(firstRenewal<<min(h.replacements-1, 16), lastRenewal)
	}
	h.replacements++
	h.next, h.failures = t.now().Add(wait), 0
	poke(t.wake)
	klog.InfoS("The authority no longer accepts a pod's token", "pod", klog.KRef(h.namespace, h.name), "audience", h.audience, "reason", why)
	if t.config.Refused != nil {
		t.config.Refused(h.pod, why)
	}
}

// suspectLike brings those tokens to a review that have what the replacement of a refused token lacks. t.mu is held.
func (t *Tokens) suspectLike(old, replacement traits) {
	for _, h := range t.held {
		h.suspect = h.suspect || h.text != "" && h.sharesLost(old, replacement)
	}
}

// reviewAll reviews tokens one after the other until ctx ends: first those that there is a reason to doubt, else one every
// reviewEvery, the one whose review is longest ago.
func (t *Tokens) reviewAll(ctx context.Context) {
	for {
		h, text, wait := t.toReview()
		if h == nil {
			if !t.pause(ctx, wait, t.doubt) {
				return
			}
			continue
		}
		t.review(ctx, h, text)
		if !t.pause(ctx, urgentSpacing, nil) {
			return
		}
	}
}

// toReview returns the token to review now, or how long there will be none.
func (t *Tokens) toReview() (next *held, text string, wait time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := t.config.Clock.Now() // with the monotonic clock: what is measured are pauses
	if wait := t.reviewAfter.Sub(now); wait > 0 {
		return nil, "", wait
	}
	for _, h := range t.held {
		switch {
		case h.text == "" || h.over || h.refused || !t.now().Before(h.expires):
		case h.suspect:
			return h, h.text, 0
		case next == nil || h.reviewed < next.reviewed:
			next = h
		}
	}
	if next == nil {
		return nil, "", longestPause
	}
	if wait := t.swept.Add(reviewEvery).Sub(now); wait > 0 {
		return nil, "", wait
	}
	t.swept = now
	return next, next.text, 0
}

func (t *Tokens) review(ctx context.Context, h *held, text string) {
	limited, cancel := context.WithTimeout(ctx, reviewTimeout)
	accepted, err := t.config.Review(limited, text, h.audience)
	cancel()
	if ctx.Err() != nil {
		return
	}
	t.metrics.reviewed(accepted, err)
	t.mu.Lock()
	defer t.mu.Unlock()
	if err != nil {
		t.reviewFailed(err)
		return
	}
	t.reviewFailures, t.reviews = 0, t.reviews+1
	if h.text != text {
		return // it was replaced meanwhile
	}
	h.suspect, h.reviewed = false, t.reviews
	if !accepted && !h.over {
		t.refuse(h, "the authority refuses it")
	}
}

// reviewFailed waits for an authority that does not answer; an outage is no reason to replace a token. t.mu is held.
func (t *Tokens) reviewFailed(err error) {
	if t.reviewFailures == 0 {
		klog.ErrorS(err, "The authority did not review a token; trying again")
	}
	wait := min(retryAfter(t.reviewFailures, t.config.Random()), lastReviewRetry)
	if apierrors.IsForbidden(err) {
		wait = forbiddenRetry
	}
	t.reviewFailures++
	t.reviewAfter = t.config.Clock.Now().Add(wait)
}

func poke(wake chan struct{}) {
	select {
	case wake <- struct{}{}:
	default:
	}
}
