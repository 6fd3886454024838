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
	// inFlight is how many requests may be under way at once.
	inFlight = 4
	// spacing is the least time between the starts of two renewals of tokens that hold, so that no outage ends in a burst.
	spacing = 50 * time.Millisecond
	// requestTimeout bounds one request, the wait for others not counted.
	requestTimeout = 15 * time.Second
	// longestPause bounds how late it is noticed that the clock was set or the machine slept.
	longestPause = time.Minute
	// firstRetry and lastRetry bound the wait after a failure.
	firstRetry, lastRetry = time.Second, time.Minute
)

// TokensConfig says what Tokens works with.
type TokensConfig struct {
	Request Request
	// Review, where not nil, is asked whether the authority still accepts the tokens.
	Review Review
	// Account, where not nil, returns the UID of a service account as far as it is known, or "". It must not block.
	Account func(namespace, name string) types.UID
	// Clock is the real one if nil.
	Clock clock.Clock
	// Renewed is told of a pod whose token has been replaced before its end. It must not block.
	Renewed func(pod types.UID)
	// Failed is told that a pod's token could not be renewed: once when that begins, and once more if the token has
	// ended meanwhile. The error names neither token nor credential. It must not block.
	Failed func(pod types.UID, err error)
	// Refused is told why the authority does not accept a pod's token any more, before a new one is requested. It must not
	// block, nor call Tokens.
	Refused func(pod types.UID, why string)
	// Random returns numbers from 0 to 1. It is rand.Float64 if nil.
	Random func() float64
	// Metrics, where not nil, is where the metrics are registered.
	Metrics compbasemetrics.KubeRegistry
}

// Tokens holds the tokens of pods and renews them before they end, or as soon as the authority does not accept them any more.
type Tokens struct {
	config  TokensConfig
	time    *Timeline
	metrics *metrics
	// slots is full while as many requests are under way as may be.
	slots chan struct{}
	// wake tells Run that there is something new to wait for.
	wake chan struct{}
	// doubt tells reviewAll that there is a token to review.
	doubt chan struct{}

	mu   sync.Mutex
	held map[wanted]*held
	// swept is when a token was last reviewed without a reason; until reviewAfter none is.
	swept, reviewAfter time.Time
	reviewFailures     int
	// reviews counts those that were answered.
	reviews uint64
}

// held is a token that a pod wants. What may change is guarded by Tokens.mu.
type held struct {
	wanted
	bearer
	// busy is full while somebody requests this token.
	busy chan struct{}

	grant
	// next is when the token is requested again; zero while it has never been there.
	next     time.Time
	failures int
	failure  error
	told     news
	// refused says that the authority does not accept the token, suspect that this is to be found out, and reviewed is the
	// number of its last review.
	refused, suspect bool
	reviewed         uint64
	// replaced says that the token replaced a refused one, and replacements how many such did not help.
	replaced     bool
	replacements int
	// over says that the pod is no more: nothing is requested any longer.
	over bool
}

// NewTokens returns Tokens that hold nothing yet.
func NewTokens(config TokensConfig) *Tokens {
	if config.Clock == nil {
		config.Clock = clock.RealClock{}
	}
	if config.Random == nil {
		config.Random = rand.Float64
	}
	t := &Tokens{
		config: config, time: NewTimeline(config.Clock), metrics: newMetrics(), slots: make(chan struct{}, inFlight), wake: make(chan struct{}, 1),
		doubt: make(chan struct{}, 1), held: map[wanted]*held{},
	}
	if config.Metrics != nil {
		t.register(config.Metrics)
	}
	return t
}

func (t *Tokens) now() time.Time { return t.time.Now() }

// Get returns the pod's token for a source: the one that is there while it holds, else a new one. It is renewed from then
// on until Forget.
func (t *Tokens) Get(ctx context.Context, pod *corev1.Pod, source *corev1.ServiceAccountTokenProjection) (string, error) {
	h := t.hold(pod, source)
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

// current answers Get without a request where it can: a token that holds, or the latest failure while its back-off lasts.
func (t *Tokens) current(h *held) (text string, err error, done bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := t.now()
	switch {
	case h.text != "" && now.Before(h.expires):
		return h.text, nil, true // also if it is refused: Run replaces it
	case h.failure != nil && (h.over || now.Before(h.next)):
		return "", h.failure, true
	}
	return "", nil, false
}

// Adopt takes over a token that an earlier agent left, if it is what the source asks for and holds, and has it reviewed. It
// reports whether Get now has a token to return.
func (t *Tokens) Adopt(pod *corev1.Pod, source *corev1.ServiceAccountTokenProjection, text string) bool {
	h := t.hold(pod, source)
	t.mu.Lock()
	defer t.mu.Unlock()
	if h.text != "" {
		return true
	}
	found, ok := takeOver(text, h.wanted, h.bearer, t.now())
	if ok {
		t.keep(h, found)
		h.suspect = true // much may have happened since
	}
	return ok
}

// Forget ends the renewal of a pod's tokens.
func (t *Tokens) Forget(pod types.UID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for key, h := range t.held {
		if key.pod == pod {
			h.over = true
			delete(t.held, key)
		}
	}
}

func (t *Tokens) hold(pod *corev1.Pod, source *corev1.ServiceAccountTokenProjection) *held {
	key := want(pod, source)
	t.mu.Lock()
	defer t.mu.Unlock()
	h := t.held[key]
	if h == nil {
		h = &held{wanted: key, bearer: bearerOf(pod), busy: make(chan struct{}, 1)}
		t.held[key] = h
	}
	return h
}

// request asks for a token and keeps what came of it. The caller has the token's busy and a slot.
func (t *Tokens) request(ctx context.Context, h *held, reason string) error {
	limited, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	sent := t.now()
	answer, err := t.config.Request(limited, h.namespace, h.account, tokenRequest(h.wanted, h.bearer))
	var found grant
	if err == nil {
		found, err = granted(answer, sent)
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
	t.keep(h, found)
	return nil
}

func (t *Tokens) keep(h *held, found grant) {
	if h.replaced = h.refused; h.refused {
		t.suspectLike(h.traits, found.traits)
	}
	h.grant, h.failures, h.failure, h.told, h.refused = found, 0, nil, nothing, false
	// The account may have been created again while the token was on its way.
	h.suspect = t.isOfFormerAccount(found, h.bearer)
	h.next = RenewAt(found.issued, found.expires, t.config.Random())
	poke(t.wake)
	poke(t.doubt)
}

func (t *Tokens) fail(h *held, err error) {
	h.failure = err
	// A token that has never been there is asked for by Get alone, whose caller decides when and for how long.
	if h.text == "" {
		return
	}
	if isOver(err, h.name) {
		h.over = true
		return
	}
	h.next = t.now().Add(retryAfter(h.failures, t.config.Random()))
	h.failures++
}

// retryAfter doubles the wait with each failure. jitter, from 0 to 1, takes away up to half of it.
func retryAfter(failures int, jitter float64) time.Duration {
	wait := min(firstRetry<<min(failures, 16), lastRetry)
	return wait - time.Duration(jitter*float64(wait)/2)
}

// news is how bad a failing renewal has become.
type news int

const (
	nothing news = iota
	failing
	ended
)

var errEnded = errors.New("the token has ended")

// report tells of a failed renewal once, and once more when the token has ended.
func (t *Tokens) report(h *held, err error) {
	t.mu.Lock()
	now, over := failing, h.over
	if !t.now().Before(h.expires) {
		now, err = ended, fmt.Errorf("%w: %w", errEnded, err)
	}
	old := h.told
	h.told = max(old, now)
	t.mu.Unlock()
	if over || now <= old {
		return
	}
	klog.ErrorS(err, "Token not renewed", "pod", klog.KRef(h.namespace, h.name), "audience", h.audience)
	if t.config.Failed != nil {
		t.config.Failed(h.pod, err)
	}
}
