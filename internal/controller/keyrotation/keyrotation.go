// Package keyrotation replaces the signing keys of an authority: it publishes the next key in time, lets it sign once every
// verifier can know it, and retires keys that no live token needs.
//
// What is due is decided by package rotation. Any number of replicas may run the controller: the one whose write comes first
// makes a change, and records the event. Keys have no API by which they change state, so the controller writes them directly; its
// events are written through the API, under its own user.
package keyrotation

import (
	"context"
	"errors"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/klog/v2"
	"k8s.io/utils/clock"

	"lanyard.dev/internal/controller"
	"lanyard.dev/internal/signingkey/rotation"
)

// Component is the source of the controller's events.
const Component = "signing-key-controller"

// Keys are the keys of the authority.
type Keys interface {
	Policy() rotation.Policy
	// Change stores what change returns for the stored keys, unless that is the same. It may call change several times.
	Change(ctx context.Context, change func(rotation.Ring) (rotation.Ring, error)) (rotation.Ring, error)
}

// Config configures a Controller. All fields are required.
type Config struct {
	Keys   Keys
	Tokens rotation.Tokens
	Events controller.Events
	// Reference returns the object that an event about a key is recorded for.
	Reference func(kid string) *corev1.ObjectReference
	Clock     clock.WithTicker
}

// Controller replaces signing keys.
type Controller struct{ Config }

// New returns a controller.
func New(c Config) *Controller { return &Controller{c} }

const (
	// longestPause is the longest time between two looks at the keys, and shortestPause the shortest, for periods of tests.
	longestPause, shortestPause = time.Minute, 10 * time.Millisecond
	// looks is how often the controller looks at the keys during the shortest time of the policy.
	looks = 10
)

// pause returns the time between two looks at the keys.
func (c *Controller) pause() time.Duration {
	p, shortest := c.Keys.Policy(), longestPause*looks
	for _, d := range []time.Duration{p.Period, p.Lead, p.Linger} {
		if d > 0 {
			shortest = min(shortest, d)
		}
	}
	return max(shortest/looks, shortestPause)
}

// Run changes keys when they are due, until ctx ends.
func (c *Controller) Run(ctx context.Context) {
	tick := c.Clock.NewTicker(c.pause())
	defer tick.Stop()
	for ctx.Err() == nil {
		if err := c.Look(ctx); err != nil && ctx.Err() == nil {
			klog.ErrorS(err, "Signing keys could not be changed; trying again")
		}
		select {
		case <-ctx.Done():
		case <-tick.C():
		}
	}
}

// Look makes the changes that are due now. The error is the reason for those that could not be made.
func (c *Controller) Look(ctx context.Context) error {
	var made []rotation.Change
	var refusal error
	ring, err := c.Keys.Change(ctx, func(stored rotation.Ring) (next rotation.Ring, err error) {
		next, made, refusal = c.Keys.Policy().Advance(stored, c.Clock.Now(), c.Tokens)
		return next, nil
	})
	if err != nil {
		return err
	}
	for _, change := range made {
		c.record(ring, change)
	}
	if errors.Is(refusal, rotation.ErrFull) {
		c.warnFull(ring)
	}
	return refusal
}

// record writes a change to the log and records an event.
func (c *Controller) record(ring rotation.Ring, change rotation.Change) {
	klog.InfoS("Signing key", "key", change.Key, "algorithm", change.Algorithm, "state", change.State)
	c.Events.Event(c.Reference(change.Key), corev1.EventTypeNormal, string(change.State), c.describe(ring, change))
}

func (c *Controller) describe(ring rotation.Ring, change rotation.Change) string {
	switch change.State {
	case rotation.Published:
		key, _ := ring.Find(change.Key)
		return fmt.Sprintf("the key is in the key set, and signs %s tokens from %s", change.Algorithm,
			c.Keys.Policy().SignsFrom(key).Format(time.RFC3339))
	case rotation.Signing:
		return fmt.Sprintf("the key signs %s tokens", change.Algorithm)
	case rotation.Verifying:
		return "the key signs no more; its tokens are accepted until they expire"
	case rotation.Retired:
		return "no token of the key is left, so it is not accepted any more"
	}
	return "the key is not accepted any more"
}

// warnFull records that there are too many keys, for the keys that sign.
func (c *Controller) warnFull(ring rotation.Ring) {
	for _, key := range ring.Accepted() {
		if key.State() == rotation.Signing {
			c.Events.Event(c.Reference(key.ID), corev1.EventTypeWarning, "NotRotated",
				fmt.Sprintf("the key is due, and has no successor: %v", rotation.ErrFull))
		}
	}
}
