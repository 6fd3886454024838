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

// member is one etcd member with the connections of the storage to it.
type member struct {
	address string
	client  *clientv3.Client // used by the probe only

	mu           sync.Mutex
	lastResponse time.Time // the end of the latest probe that succeeded
	silentSince  time.Time // the start of the first probe that failed since then; zero if there is none
	conns        map[*conn]struct{}
	usable       chan struct{} // closed while the member may be used
}

func newMember(address string, client *clientv3.Client) *member {
	m := &member{address: address, client: client, conns: map[*conn]struct{}{}, usable: make(chan struct{})}
	close(m.usable)
	return m
}

// probe reads a key from the member. The read is linearizable, so it also fails if the member has no leader.
func (m *member) probe(ctx context.Context, key string, timeout time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	if _, err := m.client.Get(ctx, key, clientv3.WithCountOnly()); isSilence(err) {
		return err
	}
	return nil
}

// recordResponse records a probe that succeeded, and makes the member usable.
func (m *member) recordResponse(at time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.lastResponse, m.silentSince = at, time.Time{}
	if !m.isUsable() {
		close(m.usable)
		klog.InfoS("An etcd member responds again", "member", m.address)
	}
}

// recordSilence records a probe that failed and when it began.
func (m *member) recordSilence(began time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.silentSince.IsZero() {
		m.silentSince = began
	}
}

// silence returns since when the member has not responded; ok is false if it has responded to the latest probe.
func (m *member) silence() (since time.Time, ok bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.silentSince, !m.silentSince.IsZero()
}

func (m *member) response() time.Time {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.lastResponse
}

// drop closes every connection to the member and makes new ones wait. It reports whether the member was usable.
func (m *member) drop() bool {
	m.mu.Lock()
	if !m.isUsable() {
		m.mu.Unlock()
		return false
	}
	m.usable = make(chan struct{})
	dropped := m.conns
	m.conns = map[*conn]struct{}{}
	m.mu.Unlock()
	for c := range dropped {
		_ = c.Conn.Close()
	}
	return true
}

// isUsable reports whether the member may be used. mu must be held.
func (m *member) isUsable() bool {
	select {
	case <-m.usable:
		return true
	default:
		return false
	}
}

// awaitUsable waits until the member may be used.
func (m *member) awaitUsable(ctx context.Context) error {
	m.mu.Lock()
	usable := m.usable
	m.mu.Unlock()
	select {
	case <-usable:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("etcd %s does not respond: %w", m.address, ctx.Err())
	}
}

// track returns the connection such that drop closes it. If the member was dropped while the connection was made, it is
// closed at once.
func (m *member) track(raw net.Conn) net.Conn {
	c := &conn{Conn: raw, member: m}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.isUsable() {
		m.conns[c] = struct{}{}
	} else {
		_ = raw.Close()
	}
	return c
}

// conn is a connection of the storage to a member.
type conn struct {
	net.Conn
	member *member
}

// Close implements net.Conn.
func (c *conn) Close() error {
	c.member.mu.Lock()
	delete(c.member.conns, c)
	c.member.mu.Unlock()
	return c.Conn.Close()
}
