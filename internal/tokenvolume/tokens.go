package tokenvolume

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	compbasemetrics "k8s.io/component-base/metrics"
	"k8s.io/klog/v2"
	"k8s.io/utils/clock"
)

const (
	// inFlight is the maximum number of concurrent requests.
	inFlight = 4
	// spacing is the minimum time between the starts of two renewals of valid tokens, so that an outage does not end in a burst.
	spacing = 50 * time.Millisecond
	// requestTimeout bounds one request, without the time that it waits for other requests.
	requestTimeout = 15 * time.Second
	// maxPause bounds the delay until Run notices that the clock was set, or that the machine slept.
	maxPause = time.Minute
	// firstRetry and lastRetry bound the wait after a failure.
	firstRetry, lastRetry = time.Second, time.Minute
)

// TokensConfig configures Tokens. Only Request is required.
type TokensConfig struct {
	Request Request
	// Review, where not nil, finds out whether the authority still accepts the tokens.
	Review Review
	// Account, where not nil, returns the UID of a service account, or "" if it is not known. It must not block.
	Account func(namespace, name string) types.UID
	// Clock is the real clock if nil.
	Clock clock.Clock
	// Renewed, where not nil, is called for a pod whose token has been replaced before it expired. It must not block.
	Renewed func(pod types.UID)
	// Failed, where not nil, is called when a pod's token cannot be renewed: at the first failure, and again if the token has
	// expired. The error contains neither a token nor a credential. Failed must not block.
	Failed func(pod types.UID, err error)
	// Refused, where not nil, is called with the reason when the authority no longer accepts a pod's token, before a new one is
	// requested. It must not block, and must not call Tokens.
	Refused func(pod types.UID, why string)
	// Random returns numbers from 0 to 1. It is rand.Float64 if nil.
	Random func() float64
	// Metrics, where not nil, is where the metrics are registered.
	Metrics compbasemetrics.KubeRegistry
}

// Tokens holds the tokens of pods. It renews them before they expire, and replaces those that the authority no longer
// accepts.
type Tokens struct {
	config  TokensConfig
	time    *Timeline
	metrics *metrics
	// slots holds a value for each request that is under way.
	slots chan struct{}
	// wake ends the pause of Run when a token must be requested earlier than before.
	wake chan struct{}
	// reviewWake ends the pause of reviewAll when there is a token to review.
	reviewWake chan struct{}

	mu      sync.Mutex
	managed map[tokenSpec]*managed
	// lastRoutine is when a token was last reviewed without a reason. No token is reviewed before reviewAfter.
	lastRoutine, reviewAfter time.Time
	reviewFailures           int
	// reviews is the number of reviews that the authority has answered.
	reviews uint64
}

// managed is a token that a pod uses. Tokens.mu guards the fields that change.
type managed struct {
	tokenSpec
	podRef
	// busy holds a value while this token is being requested.
	busy chan struct{}

	issuedToken
	// next is when the token is requested again. It is zero before the first token has been issued.
	next     time.Time
	failures int
	failure  error
	reported severity
	// refused is set if the authority does not accept the token, and suspect if a review is to find out whether it does.
	refused, suspect bool
	// reviewed is the value of Tokens.reviews after the token's last review.
	reviewed uint64
	// replaced is set if the token replaced a refused one. replacements counts the replacements that were refused as well.
	replaced     bool
	replacements int
	// podGone is set if the pod no longer exists. The token is not requested again.
	podGone bool
}

// NewTokens returns Tokens without any token.
func NewTokens(config TokensConfig) *Tokens {
	if config.Clock == nil {
		config.Clock = clock.RealClock{}
	}
	if config.Random == nil {
		config.Random = rand.Float64
	}
	t := &Tokens{
		config: config, time: NewTimeline(config.Clock), metrics: newMetrics(), slots: make(chan struct{}, inFlight), wake: make(chan struct{}, 1),
		reviewWake: make(chan struct{}, 1), managed: map[tokenSpec]*managed{},
	}
	if config.Metrics != nil {
		t.register(config.Metrics)
	}
	return t
}

func (t *Tokens) now() time.Time { return t.time.Now() }

// Get returns the pod's token for a source: the current one while it is valid, and otherwise a new one. From the first call
// on, Run renews the token until Forget.
func (t *Tokens) Get(ctx context.Context, pod *corev1.Pod, source *corev1.ServiceAccountTokenProjection) (string, error) {
	h := t.manage(pod, source)
	select {
	case h.busy <- struct{}{}:
		defer func() { <-h.busy }()
	case <-ctx.Done():
		return "", ctx.Err()
	}
	if text, err, done := t.current(h); done {
		return text, err
	}
	select {
	case t.slots <- struct{}{}:
		defer func() { <-t.slots }()
	case <-ctx.Done():
		return "", ctx.Err()
	}
	if err := t.request(ctx, h, "initial"); err != nil {
		return "", err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	return h.text, nil
}

// current returns, without a request, what Get returns: a token while it is valid, or the last failure during its back-off.
// done is false if Get must request a token.
func (t *Tokens) current(h *managed) (text string, err error, done bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := t.now()
	switch {
	case h.text != "" && now.Before(h.expires):
		return h.text, nil, true // also if the token is refused: Run replaces it
	case h.failure != nil && (h.podGone || now.Before(h.next)):
		return "", h.failure, true
	}
	return "", nil, false
}

// Adopt takes over a token that an earlier agent has left, if it is valid and matches the source, and marks it for review. It
// reports whether there is a token that Get can return.
func (t *Tokens) Adopt(pod *corev1.Pod, source *corev1.ServiceAccountTokenProjection, text string) bool {
	h := t.manage(pod, source)
	t.mu.Lock()
	defer t.mu.Unlock()
	if h.text != "" {
		return true
	}
	found, ok := takeOver(text, h.tokenSpec, h.podRef, t.now())
	if ok {
		t.store(h, found)
		h.suspect = true // the authority may have ceased to accept it
	}
	return ok
}

// Forget ends the renewal of a pod's tokens.
func (t *Tokens) Forget(pod types.UID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for key, h := range t.managed {
		if key.pod == pod {
			h.podGone = true
			delete(t.managed, key)
		}
	}
}

func (t *Tokens) manage(pod *corev1.Pod, source *corev1.ServiceAccountTokenProjection) *managed {
	key := specOf(pod, source)
	t.mu.Lock()
	defer t.mu.Unlock()
	h := t.managed[key]
	if h == nil {
		h = &managed{tokenSpec: key, podRef: podRefOf(pod), busy: make(chan struct{}, 1)}
		t.managed[key] = h
	}
	return h
}

// request requests a token and stores the result. The caller holds the token's busy and a slot.
func (t *Tokens) request(ctx context.Context, h *managed, reason string) error {
	limited, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	sent := t.now()
	answer, err := t.config.Request(limited, h.namespace, h.account, tokenRequest(h.tokenSpec, h.podRef))
	var found issuedToken
	if err == nil {
		found, err = parseAnswer(answer, sent)
	}
	t.metrics.requested(reason, err)
	if err != nil && ctx.Err() != nil {
		return err
	}
	if err != nil {
		err = fmt.Errorf("failed to fetch token: %w", err)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if err != nil {
		t.fail(h, err)
		return err
	}
	t.store(h, found)
	return nil
}

func (t *Tokens) store(h *managed, found issuedToken) {
	if h.replaced = h.refused; h.refused {
		t.suspectSimilar(h.traits, found.traits)
	}
	h.issuedToken, h.failures, h.failure, h.reported, h.refused = found, 0, nil, unreported, false
	// The account may have been deleted and created again while the answer was on its way.
	h.suspect = t.isOfFormerAccount(found, h.podRef)
	h.next = RenewAt(found.issued, found.expires, t.config.Random())
	wakeUp(t.wake)
	wakeUp(t.reviewWake)
}

func (t *Tokens) fail(h *managed, err error) {
	h.failure = err
	// Run renews tokens only. Before the first token has been issued, the caller of Get decides when to try again.
	if h.text == "" {
		return
	}
	if isPodGone(err, h.name) {
		h.podGone = true
		return
	}
	h.next = t.now().Add(retryAfter(h.failures, t.config.Random()))
	h.failures++
}

// retryAfter returns the wait after a failure. It doubles with each failure. jitter, from 0 to 1, shortens it by up to half.
func retryAfter(failures int, jitter float64) time.Duration {
	wait := min(firstRetry<<min(failures, 16), lastRetry)
	return wait - time.Duration(jitter*float64(wait)/2)
}

// severity is the state of a failing renewal.
type severity int

const (
	unreported severity = iota
	expiring
	expired
)

var errEnded = errors.New("the token has ended")

// report reports a failed renewal once, and again when the token has expired.
func (t *Tokens) report(h *managed, err error) {
	t.mu.Lock()
	now, podGone := expiring, h.podGone
	if !t.now().Before(h.expires) {
		now, err = expired, fmt.Errorf("%w: %w", errEnded, err)
	}
	old := h.reported
	h.reported = max(old, now)
	t.mu.Unlock()
	if podGone || now <= old {
		return
	}
	klog.ErrorS(err, "Token not renewed", "pod", klog.KRef(h.namespace, h.name), "audience", h.audience)
	if t.config.Failed != nil {
		t.config.Failed(h.pod, err)
	}
}
