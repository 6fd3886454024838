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
	// reviewEvery is the period in which one token is reviewed without a reason. Most tokens of a node have the same key, issuer
	// and audience. When the authority no longer accepts one of these, the first refused token causes a review of the others.
	reviewEvery = 4 * time.Second
	// urgentSpacing is the minimum time between two reviews, and between two requests for tokens that replace refused ones.
	urgentSpacing = 10 * time.Millisecond
	// reviewTimeout bounds one review.
	reviewTimeout = 5 * time.Second
	// lastReviewRetry bounds the wait after a review without an answer. forbiddenRetry is the wait after the authority has
	// forbidden this node to review tokens.
	lastReviewRetry, forbiddenRetry = 15 * time.Second, 10 * time.Minute
	// newTokenAge is the age up to which a token is treated as new. If a new token that replaced a refused one is refused as
	// well, another token is unlikely to help, and is requested after a wait of firstReplacementWait to lastReplacementWait.
	newTokenAge                               = time.Minute
	firstReplacementWait, lastReplacementWait = 30 * time.Second, 30 * time.Minute
)

// Review asks the authority whether it accepts a token for an audience. An empty audience is the authority's own. An error
// means that the authority did not answer.
type Review func(ctx context.Context, text, audience string) (accepted bool, err error)

// ReviewBy returns a Review that creates TokenReviews with a client.
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

// traits are the properties that a token shares with others. When the authority ceases to accept one of them, it refuses all
// tokens that have it.
type traits struct{ key, issuer, account, node, audience string }

func traitsOf(decoded *token.Decoded) traits {
	var header struct {
		Key string `json:"kid"`
	}
	_ = json.Unmarshal(decoded.Header, &header) // a token without a key ID has the key ""
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

// sharesRevoked reports whether the token has a trait of old that its replacement does not have: the authority may have
// refused old because of it.
func (t traits) sharesRevoked(old, replacement traits) bool {
	lost := func(own, old, now string) bool { return own == old && old != now }
	return lost(t.key, old.key, replacement.key) || lost(t.issuer, old.issuer, replacement.issuer) ||
		lost(t.account, old.account, replacement.account) || lost(t.node, old.node, replacement.node) ||
		lost(t.audience, old.audience, replacement.audience)
}

// AccountChanged must be called when a service account was created, changed or deleted. It replaces the tokens of an account
// that was deleted and created again.
func (t *Tokens) AccountChanged(namespace, name string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, h := range t.managed {
		if h.namespace == namespace && h.account == name && h.text != "" && !h.podGone && t.isOfFormerAccount(h.issuedToken, h.podRef) {
			t.markRefused(h, "its service account was deleted and created again")
			h.next, h.failures, h.replacements = t.now(), 0, 0
			wakeUp(t.wake) // the token may have been refused before, and be in the back-off of failed requests
		}
	}
}

// isOfFormerAccount reports whether the account's UID in a token differs from the UID of the account that now exists. t.mu is
// held.
func (t *Tokens) isOfFormerAccount(g issuedToken, b podRef) bool {
	if t.config.Account == nil || g.account == "" {
		return false
	}
	now := t.config.Account(b.namespace, b.account)
	return now != "" && now != types.UID(g.account)
}

// markRefused schedules the replacement of a token that the authority no longer accepts. t.mu is held.
func (t *Tokens) markRefused(h *managed, why string) {
	if h.refused {
		return
	}
	h.refused, h.suspect = true, false
	if !h.replaced || t.now().Sub(h.issued) > newTokenAge {
		h.replacements = 0
	}
	var wait time.Duration
	if h.replacements > 0 {
		wait = min(firstReplacementWait<<min(h.replacements-1, 16), lastReplacementWait)
	}
	h.replacements++
	h.next, h.failures = t.now().Add(wait), 0
	wakeUp(t.wake)
	klog.InfoS("The authority no longer accepts a pod's token", "pod", klog.KRef(h.namespace, h.name), "audience", h.audience, "reason", why)
	if t.config.Refused != nil {
		t.config.Refused(h.pod, why)
	}
}

// suspectSimilar marks for review the tokens that have a trait of a refused token which its replacement lacks. t.mu is held.
func (t *Tokens) suspectSimilar(old, replacement traits) {
	for _, h := range t.managed {
		h.suspect = h.suspect || h.text != "" && h.sharesRevoked(old, replacement)
	}
}

// reviewAll reviews tokens one after the other until ctx ends: first those that are suspect, and otherwise, once in each
// reviewEvery, the token that was reviewed least recently.
func (t *Tokens) reviewAll(ctx context.Context) {
	for {
		h, text, wait := t.nextReview()
		if h == nil {
			if !t.pause(ctx, wait, t.reviewWake) {
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

// nextReview returns the token to review now. If there is none, it returns nil and how long there will be none.
func (t *Tokens) nextReview() (next *managed, text string, wait time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := t.config.Clock.Now() // not Timeline's time: pauses are measured with the monotonic clock
	if wait := t.reviewAfter.Sub(now); wait > 0 {
		return nil, "", wait
	}
	for _, h := range t.managed {
		switch {
		case h.text == "" || h.podGone || h.refused || !t.now().Before(h.expires):
		case h.suspect:
			return h, h.text, 0
		case next == nil || h.reviewed < next.reviewed:
			next = h
		}
	}
	if next == nil {
		return nil, "", maxPause
	}
	if wait := t.lastRoutine.Add(reviewEvery).Sub(now); wait > 0 {
		return nil, "", wait
	}
	t.lastRoutine = now
	return next, next.text, 0
}

func (t *Tokens) review(ctx context.Context, h *managed, text string) {
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
		return // the token was replaced meanwhile
	}
	h.suspect, h.reviewed = false, t.reviews
	if !accepted && !h.podGone {
		t.markRefused(h, "the authority refuses it")
	}
}

// reviewFailed delays the next review. An authority that does not answer is no reason to replace a token. t.mu is held.
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

// wakeUp ends a pause. It does not block.
func wakeUp(wake chan struct{}) {
	select {
	case wake <- struct{}{}:
	default:
	}
}
