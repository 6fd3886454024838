package rotation

import (
	"fmt"
	"slices"
	"time"

	"lanyard.dev/internal/signingkey"
)

// Publish returns r with a new key of an algorithm, which Advance lets sign once it has been published for p.Lead. An empty
// algorithm means the preferred one. The error is ErrPublished if a key of the algorithm is waiting already, and ErrFull if there
// are too many keys.
func (p Policy) Publish(r Ring, algorithm signingkey.Algorithm, now time.Time) (Ring, Key, error) {
	c := p.change(r, now)
	if algorithm == "" {
		algorithm = p.preferred(r)
	}
	if i := c.latest(algorithm, Published); i >= 0 {
		return r, r.keys[i], fmt.Errorf("%w: %s", ErrPublished, r.keys[i].ID)
	}
	if c.count() >= MaxAccepted {
		return r, Key{}, ErrFull
	}
	if err := c.publish(algorithm); err != nil {
		return r, Key{}, err
	}
	return c.Ring, c.keys[len(c.keys)-1], nil
}

// SignsFrom returns when a published key may begin to sign.
func (p Policy) SignsFrom(k Key) time.Time { return k.Created.Add(p.Lead) }

// Revoke returns r without the key: none of its tokens is accepted any more. If the key signs, a new one signs at once, and a
// key that is waiting to take over is revoked with it, since it was stored beside it. The error is ErrNotFound if the key is not
// an accepted one.
func (p Policy) Revoke(r Ring, id string, now time.Time) (Ring, []Change, error) {
	c := p.change(r, now)
	i := c.index(id)
	if i < 0 || !c.keys[i].accepted() {
		return r, nil, fmt.Errorf("%w: %s", ErrNotFound, id)
	}
	algorithm, signs := c.keys[i].Algorithm, c.keys[i].State() == Signing
	for j := range c.keys {
		k := &c.keys[j]
		if j == i || signs && k.Algorithm == algorithm && (k.State() == Published || k.State() == Signing) {
			k.end(c.now, true)
			c.note(j)
		}
	}
	if !signs {
		c.prune()
		return c.Ring, c.made, nil
	}
	if err := c.replace(algorithm, p.algorithms(r)); err != nil {
		return r, nil, err
	}
	c.prune()
	return c.Ring, c.made, nil
}

// replace lets a new key sign at once after the key of an algorithm was revoked, if the algorithm is needed or no other key signs.
func (c *change) replace(algorithm signingkey.Algorithm, needed []signingkey.Algorithm) error {
	if !slices.Contains(needed, algorithm) {
		if c.Algorithm("") != "" {
			return nil
		}
		algorithm = needed[0]
	}
	key, err := newKey(algorithm, c.now)
	if err != nil {
		return err
	}
	c.keys = append(c.keys, key)
	c.takeOver(len(c.keys) - 1)
	return nil
}

// File is a key that was kept in a file.
type File struct {
	Key *signingkey.PrivateKey
	// Written is when the file was written.
	Written time.Time
}

// TakeOver returns r with keys that were made elsewhere. In a ring without keys they sign, as they did until now, at most one for
// each algorithm. Otherwise their tokens are accepted, and they retire as other keys do. Keys that r knows do not change, also if
// they have ended.
func (p Policy) TakeOver(r Ring, keys []File, now time.Time) (Ring, []Change) {
	c := p.change(r, now)
	for _, file := range keys {
		if c.index(file.Key.ID()) >= 0 {
			continue
		}
		taken := Key{
			ID: file.Key.ID(), Algorithm: file.Key.Algorithm(), Public: file.Key.Public(), Created: c.now, Signed: c.now, TakenOver: true,
		}
		if written := file.Written.UTC().Truncate(time.Second); written.Before(c.now) {
			taken.Created, taken.Signed = written, written
		}
		if len(r.keys) == 0 && c.latest(taken.Algorithm, Signing) < 0 {
			taken.Private = file.Key
		} else {
			taken.Stopped = c.now
		}
		c.keys = append(c.keys, taken)
		c.note(len(c.keys) - 1)
	}
	return c.Ring, c.made
}
