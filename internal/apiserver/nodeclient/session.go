package nodeclient

import (
	"context"
	"net"
	"sync"
	"time"
)

// session opens the one connection of a session.
type session struct {
	ctx context.Context

	mu   sync.Mutex
	conn net.Conn
}

// dial connects in bounded time. The bound stays until the TLS handshake is done; the connection ends with the session,
// also once others have taken it over for a protocol of their own.
func (s *session) dial(ctx context.Context, network, address string) (net.Conn, error) {
	conn, err := (&net.Dialer{Timeout: dialTimeout}).DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	if err := conn.SetDeadline(time.Now().Add(dialTimeout)); err != nil {
		_ = conn.Close()
		return nil, err
	}
	s.mu.Lock()
	s.conn = conn
	s.mu.Unlock()
	return &bound{Conn: conn, forget: context.AfterFunc(s.ctx, func() { _ = conn.Close() })}, nil
}

// established takes the bound off.
func (s *session) established() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conn == nil {
		return nil
	}
	return s.conn.SetDeadline(time.Time{})
}

// bound is a connection that ends with its session.
type bound struct {
	net.Conn
	forget func() bool
}

// Close implements net.Conn.
func (b *bound) Close() error {
	b.forget()
	return b.Conn.Close()
}
