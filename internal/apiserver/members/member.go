package members

import (
	"context"
	"fmt"
	"net"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"k8s.io/klog/v2"
)

// member is one member, with the connections that storage has to it.
type member struct {
	address string
	client  *clientv3.Client // of the probe alone

	mu     sync.Mutex
	answer time.Time // of the last probe that was answered
	silent time.Time // the begin of the first probe that was not answered since; zero if there is none
	conns  map[*conn]struct{}
	usable chan struct{} // closed while the member may be used
}

func newMember(address string, client *clientv3.Client) *member {
	one := &member{address: address, client: client, conns: map[*conn]struct{}{}, usable: make(chan struct{})}
	close(one.usable)
	return one
}

// probe reads key by way of the member and its leader, so that a member without a leader fails too.
func (one *member) probe(ctx context.Context, key string, timeout time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	if _, err := one.client.Get(ctx, key, clientv3.WithCountOnly()); silent(err) {
		return err
	}
	return nil
}

// answered makes the member usable.
func (one *member) answered(at time.Time) {
	one.mu.Lock()
	defer one.mu.Unlock()
	one.answer, one.silent = at, time.Time{}
	if !one.isUsable() {
		close(one.usable)
		klog.InfoS("An etcd member answers again", "member", one.address)
	}
}

func (one *member) missed(began time.Time) {
	one.mu.Lock()
	defer one.mu.Unlock()
	if one.silent.IsZero() {
		one.silent = began
	}
}

func (one *member) silentSince() (time.Time, bool) {
	one.mu.Lock()
	defer one.mu.Unlock()
	return one.silent, !one.silent.IsZero()
}

func (one *member) lastAnswer() time.Time {
	one.mu.Lock()
	defer one.mu.Unlock()
	return one.answer
}

// drop closes every connection to the member and has new ones wait. It reports whether the member was in use.
func (one *member) drop() bool {
	one.mu.Lock()
	if !one.isUsable() {
		one.mu.Unlock()
		return false
	}
	one.usable = make(chan struct{})
	dropped := one.conns
	one.conns = map[*conn]struct{}{}
	one.mu.Unlock()
	for c := range dropped {
		_ = c.Conn.Close()
	}
	return true
}

// isUsable is called with mu held.
func (one *member) isUsable() bool {
	select {
	case <-one.usable:
		return true
	default:
		return false
	}
}

func (one *member) awaitUsable(ctx context.Context) error {
	one.mu.Lock()
	usable := one.usable
	one.mu.Unlock()
	select {
	case <-usable:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("etcd %s does not answer: %w", one.address, ctx.Err())
	}
}

// keep remembers a connection until it is closed. One that was made while the member was dropped is closed at once.
func (one *member) keep(raw net.Conn) net.Conn {
	c := &conn{Conn: raw, of: one}
	one.mu.Lock()
	defer one.mu.Unlock()
	if one.isUsable() {
		one.conns[c] = struct{}{}
	} else {
		_ = raw.Close()
	}
	return c
}

// conn is a connection of storage to a member.
type conn struct {
	net.Conn
	of *member
}

// Close implements net.Conn.
func (c *conn) Close() error {
	c.of.mu.Lock()
	delete(c.of.conns, c)
	c.of.mu.Unlock()
	return c.Conn.Close()
}
