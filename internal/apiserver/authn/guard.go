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

// ErrThrottled means that a token was not verified, because too many forged tokens came from the same address. The token may
// be valid: the caller should try again.
var ErrThrottled = errors.New("too many tokens from this address were not issued by this server")

const (
	// forgedPerSecond is how many forged tokens of one address are verified per second, after the first forgedBurst.
	forgedPerSecond, forgedBurst = 50, 500
	// linesPerMinute is how many refusals of one address are logged per minute, after the first linesBurst. allPerSecond is
	// how many refusals of all addresses are logged per second, after the first allBurst.
	linesPerMinute, linesBurst = 6, 10
	allPerSecond, allBurst     = 5, 50
	// sourcesKept is how many addresses are remembered.
	sourcesKept = 4096
	// tokensKept is how many valid tokens are remembered at least. At most twice as many are.
	tokensKept = 8192
)

// Guard limits, for each source address, what refused credentials cost: verifications of forged tokens, and lines in the log. A
// token that was valid before is always verified, so an attacker does not stop clients at the same address. The first request
// with a new token may get ErrThrottled, which does not refuse the token; the client tries again.
type Guard struct {
	clock clock.PassiveClock
	warn  func(line string)

	valid   *tokenMemory
	sources *lru.Cache // from addresses to *source
	lines   *rate.Limiter
	// unlogged counts refusals that were not logged, of addresses that are not in sources any more.
	unlogged atomic.Int64
}

// source is the state of one address.
type source struct {
	forged, lines *rate.Limiter
	unlogged      atomic.Int64 // refusals that were not logged since the last line
}

// NewGuard returns a guard that logs refusals as warnings.
func NewGuard(c clock.PassiveClock) *Guard {
	// klog.Warning loses its level if klog writes to an slog.Handler.
	return newGuard(c, func(line string) { slog.New(logr.ToSlogHandler(klog.Background())).Warn(line) })
}

func newGuard(c clock.PassiveClock, warn func(string)) *Guard {
	g := &Guard{clock: c, warn: warn, valid: newTokenMemory(), lines: rate.NewLimiter(allPerSecond, allBurst)}
	g.sources = lru.NewWithEvictionFunc(sourcesKept, func(_ lru.Key, value any) {
		g.unlogged.Add(value.(*source).unlogged.Load())
	})
	return g
}

// admits reports whether a token from an address may be verified.
func (g *Guard) admits(remoteAddr, text string) bool {
	if g.valid.has(text) {
		return true
	}
	s, ok := g.sources.Get(limits.CallerAt(remoteAddr).Name)
	return !ok || s.(*source).forged.TokensAt(g.clock.Now()) >= 1
}

// recordResult records the result of verifying a token.
func (g *Guard) recordResult(remoteAddr, text string, err error) {
	switch {
	case err == nil:
		g.valid.add(text)
	case !isGenuine(err):
		g.source(remoteAddr).forged.AllowN(g.clock.Now(), 1)
	}
}

// isGenuine reports whether this server issued a refused token, or may have issued it: it has expired, it was revoked, its
// object is gone, or it cannot be decided now. Refusing it again costs little, and its holder is a client and not an attacker.
func isGenuine(err error) bool {
	if outage.Of(err) != nil {
		return true
	}
	for _, reason := range []error{
		token.ErrExpired, token.ErrNotYetValid, token.ErrAudience,
		token.ErrAccountGone, token.ErrPodGone, token.ErrSecretGone, token.ErrNodeGone, token.ErrAnchorsStale,
		token.ErrRevoked, token.ErrLedgerStale,
	} {
		if errors.Is(err, reason) {
			return true
		}
	}
	return false
}

// source returns the state of an address, which it creates if necessary.
func (g *Guard) source(remoteAddr string) *source {
	address := limits.CallerAt(remoteAddr).Name
	if s, ok := g.sources.Get(address); ok {
		return s.(*source)
	}
	s := &source{
		forged: rate.NewLimiter(forgedPerSecond, forgedBurst),
		lines:  rate.NewLimiter(linesPerMinute/60.0, linesBurst),
	}
	g.sources.Add(address, s) // if two requests create it at the same time, one count is lost
	return s
}

// logRefusal logs a line, unless there were too many lines lately. line returns the text; its argument is the number of
// refusals that were not logged before.
func (g *Guard) logRefusal(remoteAddr string, line func(unlogged int64) string) {
	s, now := g.source(remoteAddr), g.clock.Now()
	if !s.lines.AllowN(now, 1) || !g.lines.AllowN(now, 1) {
		s.unlogged.Add(1)
		return
	}
	g.warn(line(s.unlogged.Swap(0) + g.unlogged.Swap(0)))
}

// tokenMemory remembers which tokens were valid. It holds hashes with a secret seed and no tokens, and no token is accepted
// because of it. It forgets in two generations and not in the order of use, as an LRU cache does, because every request
// looks here: a lookup takes a read lock only, and does not allocate.
type tokenMemory struct {
	seed maphash.Seed

	mu                sync.RWMutex
	current, previous map[uint64]struct{}
}

func newTokenMemory() *tokenMemory {
	return &tokenMemory{seed: maphash.MakeSeed(), current: map[uint64]struct{}{}}
}

func (m *tokenMemory) has(text string) bool {
	h := maphash.String(m.seed, text)
	m.mu.RLock()
	defer m.mu.RUnlock()
	_, now := m.current[h]
	_, before := m.previous[h]
	return now || before
}

// add remembers a token. Each time tokensKept new tokens have been added, it forgets the tokens that were not added since the
// time before.
func (m *tokenMemory) add(text string) {
	h := maphash.String(m.seed, text)
	m.mu.RLock()
	_, known := m.current[h]
	m.mu.RUnlock()
	if known {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.current) >= tokensKept {
		m.current, m.previous = map[uint64]struct{}{}, m.current
	}
	m.current[h] = struct{}{}
}
