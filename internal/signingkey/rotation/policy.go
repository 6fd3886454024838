package rotation

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"time"

	"lanyard.dev/internal/signingkey"
)

const (
	// DefaultPeriod is how long a key signs.
	DefaultPeriod = 7 * 24 * time.Hour
	// MaxSkew is how far the wall clocks of replicas may differ. It is part of every Lead and Linger.
	MaxSkew = 5 * time.Minute
	// DefaultLinger is the shortest time for which a key is accepted after it has stopped to sign. It is longer than a replica that
	// has not learned of the next key may go on to sign, plus MaxSkew.
	DefaultLinger = 10 * time.Minute
	// DefaultKept is how long a key that was taken over is accepted after it has stopped to sign, since its tokens from before are
	// not all known.
	DefaultKept = 30 * 24 * time.Hour
	// MaxAccepted is the limit for accepted keys. No key is added by rotation while there are so many.
	MaxAccepted = 64
)

// Lead returns how long a key must be published before it signs, if clients may cache the key set for maxAge.
func Lead(maxAge time.Duration) time.Duration { return maxAge + 2*MaxSkew }

// Policy says when keys change.
type Policy struct {
	// Algorithms are the algorithms that tokens are signed with. The first is the algorithm of tokens whose audience needs no
	// other; "" keeps the algorithm of the key that signs, and is signingkey.DefaultAlgorithm if there is none.
	Algorithms []signingkey.Algorithm
	// Period is how long a key signs. At 0 keys change only on request.
	Period time.Duration
	// Lead is how long a key is published before it signs. See the function Lead.
	Lead time.Duration
	// Linger is the shortest time for which a key is accepted after it has stopped to sign, and Kept the shortest such time of a key
	// that was taken over.
	Linger, Kept time.Duration
}

// Tokens counts live tokens.
type Tokens interface {
	// LiveTokens returns how many tokens that a key signed are still valid. The error says that the number is not known now.
	LiveTokens(kid string) (int, error)
}

// Change is a key that has reached another state.
type Change struct {
	Key   string
	State State
	// Algorithm is the algorithm of the key.
	Algorithm signingkey.Algorithm
}

// Reasons why keys do not change.
var (
	ErrNotFound  = errors.New("no such key")
	ErrPublished = errors.New("a key is already published and takes over next")
	ErrFull      = fmt.Errorf("%d keys have live tokens: no key is added until one of them retires", MaxAccepted)
)

// change is a ring that is being changed, with what has changed.
type change struct {
	Policy
	Ring
	now  time.Time
	made []Change
}

func (p Policy) change(r Ring, now time.Time) *change {
	return &change{Policy: p, Ring: Ring{keys: r.Keys()}, now: now.UTC().Truncate(time.Second)}
}

// algorithms returns the algorithms that r needs a key for. The first is never "".
func (p Policy) algorithms(r Ring) []signingkey.Algorithm {
	all := []signingkey.Algorithm{p.preferred(r)}
	for i, a := range p.Algorithms {
		if i > 0 && a != all[0] {
			all = append(all, a)
		}
	}
	return all
}

// preferred returns the algorithm of tokens whose audience needs no other.
func (p Policy) preferred(r Ring) signingkey.Algorithm {
	if len(p.Algorithms) > 0 && p.Algorithms[0] != "" {
		return p.Algorithms[0]
	}
	return cmp.Or(r.Algorithm(""), signingkey.DefaultAlgorithm)
}

// Advance returns r with every change that is due now, or r itself and no changes. An error comes with the changes that do not
// depend on its cause.
func (p Policy) Advance(r Ring, now time.Time, tokens Tokens) (Ring, []Change, error) {
	c := p.change(r, now)
	corrected := c.correctTimes()
	var errs []error
	for i, algorithm := range c.algorithms(r) {
		if err := c.advance(algorithm, i == 0); err != nil {
			errs = append(errs, err)
		}
	}
	c.stopUnused()
	errs = append(errs, c.retire(tokens))
	if len(c.made) == 0 && !corrected {
		return r, nil, errors.Join(errs...)
	}
	c.prune()
	return c.Ring, c.made, errors.Join(errs...)
}

// advance makes the due changes of the keys of one algorithm.
func (c *change) advance(algorithm signingkey.Algorithm, preferred bool) error {
	signing, next := c.latest(algorithm, Signing), c.latest(algorithm, Published)
	// The first key of an algorithm signs at once if no other key can sign the same tokens.
	atOnce := signing < 0 && (!preferred || c.Algorithm("") == "")
	due := signing < 0 || c.Period > 0 && !c.now.Before(c.keys[signing].Signed.Add(c.Period-c.Lead))
	if next < 0 && due {
		if c.count() >= MaxAccepted && !atOnce {
			return ErrFull
		}
		if err := c.publish(algorithm); err != nil {
			return err
		}
		next = len(c.keys) - 1
	}
	if next >= 0 && (atOnce || c.waited(next)) {
		c.takeOver(next)
	}
	return nil
}

// waited reports whether a published key has been published for long enough to sign.
func (c *change) waited(i int) bool { return !c.now.Before(c.keys[i].Created.Add(c.Lead)) }

// publish adds a new key.
func (c *change) publish(algorithm signingkey.Algorithm) error {
	key, err := newKey(algorithm, c.now)
	if err != nil {
		return err
	}
	c.keys = append(c.keys, key)
	c.note(len(c.keys) - 1)
	return nil
}

// takeOver makes a published key sign in place of the others of its algorithm.
func (c *change) takeOver(i int) {
	for j := range c.keys {
		if c.keys[j].Algorithm == c.keys[i].Algorithm && c.keys[j].State() == Signing {
			c.keys[j].stop(c.now)
			c.note(j)
		}
	}
	c.keys[i].sign(c.now)
	c.note(i)
}

// stopUnused stops keys of algorithms that the policy does not name. Such a key signs to the end of its period, because the
// policy of another replica may still name the algorithm.
func (c *change) stopUnused() {
	used := c.algorithms(c.Ring)
	if c.latest(used[0], Signing) < 0 {
		return
	}
	for i := range c.keys {
		k := &c.keys[i]
		if state := k.State(); slices.Contains(used, k.Algorithm) || state != Signing && state != Published {
			continue
		}
		if since := later(k.Created, k.Signed); !c.now.Before(since.Add(max(c.Period, c.Lead))) {
			k.stop(c.now)
			c.note(i)
		}
	}
}

// retire ends the keys that have no live token.
func (c *change) retire(tokens Tokens) error {
	var errs []error
	for i := range c.keys {
		k := &c.keys[i]
		if k.State() != Verifying || c.now.Before(k.Stopped.Add(c.linger(k))) {
			continue
		}
		live, err := tokens.LiveTokens(k.ID)
		switch {
		case err != nil:
			errs = append(errs, fmt.Errorf("count the live tokens of key %s: %w", k.ID, err))
		case live == 0:
			k.end(c.now, false)
			c.note(i)
		}
	}
	return errors.Join(errs...)
}

func (c *change) linger(k *Key) time.Duration {
	if k.TakenOver {
		return max(c.Linger, c.Kept)
	}
	return c.Linger
}

// correctTimes replaces times that are further in the future than clocks may differ. They were written while a clock was wrong,
// and keys would not change until then. It reports whether there were any.
func (c *change) correctTimes() bool {
	corrected := false
	for i := range c.keys {
		k := &c.keys[i]
		for _, at := range []*time.Time{&k.Created, &k.Signed, &k.Stopped, &k.Ended} {
			if at.After(c.now.Add(MaxSkew)) {
				*at, corrected = c.now, true
			}
		}
	}
	return corrected
}

func (c *change) note(i int) {
	k := &c.keys[i]
	c.made = append(c.made, Change{Key: k.ID, State: k.State(), Algorithm: k.Algorithm})
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}
