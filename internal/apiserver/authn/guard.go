package authn

import (
	"errors"
	"hash/maphash"
	"log/slog"
	"sync"
	"sync/atomic"

	"github.com/go-logr/logr"
	"golang.org/x/time/rate"
	"k8s.io/klog/v2"
	"k8s.io/utils/clock"
	"k8s.io/utils/lru"

	"lanyard.dev/internal/apiserver/limits"
	"lanyard.dev/internal/apiserver/outage"
	"lanyard.dev/internal/token"
)

// ErrThrottled says that a token was not looked at, because too many forged ones came from the same address. It may be
// good: the caller should try again.
var ErrThrottled = errors.New("too many tokens from this address were no tokens of this server")

const (
	// forgedPerSecond is how many forged tokens of one address are verified in a second, after the first forgedBurst.
	forgedPerSecond, forgedBurst = 50, 500
	// linesPerMinute is how many refusals of one address are logged in a minute, after the first linesBurst, and
	// allPerSecond how many of all addresses in a second.
	linesPerMinute, linesBurst = 6, 10
	allPerSecond, allBurst     = 5, 50
	// sourcesKept is how many addresses are remembered.
	sourcesKept = 4096
	// tokensKept is how many tokens are remembered to have been good, up to twice as many while new ones come.
	tokensKept = 8192
)

// Guard limits, per source address, what refused credentials cost: the verification of forged tokens, and lines in the
// log. A token that was good before is always looked at, so clients that share an address with an attacker go on. A new
// token from such an address may have to be presented again: ErrThrottled is no refusal of the token.
type Guard struct {
	clock clock.PassiveClock
	warn  func(line string)

	good    *goodTokens
	sources *lru.Cache // of *source by address
	lines   *rate.Limiter
	// unlogged counts the refusals without a line of addresses that are not remembered any more.
	unlogged atomic.Int64
}

// source is what is known of one address.
type source struct {
	forged, lines *rate.Limiter
	unlogged      atomic.Int64 // refusals since the last line
}

// NewGuard returns a guard that logs warnings.
func NewGuard(c clock.PassiveClock) *Guard {
	// klog.Warning has no level where klog writes through slog.
	return newGuard(c, func(line string) { slog.New(logr.ToSlogHandler(klog.Background())).Warn(line) })
}

func newGuard(c clock.PassiveClock, warn func(string)) *Guard {
	g := &Guard{clock: c, warn: warn, good: newGoodTokens(), lines: rate.NewLimiter(allPerSecond, allBurst)}
	g.sources = lru.NewWithEvictionFunc(sourcesKept, func(_ lru.Key, value any) {
		g.unlogged.Add(value.(*source).unlogged.Load())
	})
	return g
}

// admits reports whether a token may be verified.
func (g *Guard) admits(remoteAddr, text string) bool {
	if g.good.has(text) {
		return true
	}
	s, ok := g.sources.Get(limits.CallerAt(remoteAddr).Name)
	return !ok || s.(*source).forged.TokensAt(g.clock.Now()) >= 1
}

// record takes note of how the verification of a token ended.
func (g *Guard) record(remoteAddr, text string, err error) {
	switch {
	case err == nil:
		g.good.add(text)
	case !genuine(err):
		g.source(remoteAddr).forged.AllowN(g.clock.Now(), 1)
	}
}

// genuine reports whether a refused token was issued by a key of this server, or may have been: it has ended, or nothing
// can be said now. Refusing it again costs little, and whoever holds it is a client and not a forger.
func genuine(err error) bool {
	if outage.Of(err) != nil {
		return true
	}
	for _, reason := range []error{
		token.ErrExpired, token.ErrNotYetValid, token.ErrAudience,
		token.ErrAccountGone, token.ErrPodGone, token.ErrSecretGone, token.ErrNodeGone, token.ErrAnchorsStale,
	} {
		if errors.Is(err, reason) {
			return true
		}
	}
	return false
}

func (g *Guard) source(remoteAddr string) *source {
	address := limits.CallerAt(remoteAddr).Name
	if s, ok := g.sources.Get(address); ok {
		return s.(*source)
	}
	s := &source{
		forged: rate.NewLimiter(forgedPerSecond, forgedBurst),
		lines:  rate.NewLimiter(linesPerMinute/60.0, linesBurst),
	}
	g.sources.Add(address, s) // of two that come at the same time one is forgotten, which loses one count
	return s
}

// line calls write with the number of refusals that were not logged before, unless too many lines were written lately.
func (g *Guard) line(remoteAddr string, write func(unlogged int64) string) {
	s, now := g.source(remoteAddr), g.clock.Now()
	if !s.lines.AllowN(now, 1) || !g.lines.AllowN(now, 1) {
		s.unlogged.Add(1)
		return
	}
	g.warn(write(s.unlogged.Swap(0) + g.unlogged.Swap(0)))
}

// goodTokens remembers which tokens were good, by a hash with a secret seed. It holds no token, and nothing is accepted
// because of it.
type goodTokens struct {
	seed maphash.Seed

	mu            sync.RWMutex
	current, last map[uint64]struct{}
}

func newGoodTokens() *goodTokens {
	return &goodTokens{seed: maphash.MakeSeed(), current: map[uint64]struct{}{}}
}

func (g *goodTokens) has(text string) bool {
	h := maphash.String(g.seed, text)
	g.mu.RLock()
	defer g.mu.RUnlock()
	_, now := g.current[h]
	_, before := g.last[h]
	return now || before
}

// add remembers a token. When as many new ones have come as are kept, those that were not seen since the last such
// moment are forgotten.
func (g *goodTokens) add(text string) {
	h := maphash.String(g.seed, text)
	g.mu.RLock()
	_, known := g.current[h]
	g.mu.RUnlock()
	if known {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.current) >= tokensKept {
		g.current, g.last = map[uint64]struct{}{}, g.current
	}
	g.current[h] = struct{}{}
}
