package connection_test

import (
	"net"
	"testing"
	"time"

	"lanyard.dev/internal/apiserver/connection"
)

// fakeListener accepts what a test hands it, and connections it claims to be from wherever the test likes.
type fakeListener struct {
	net.Listener
	next chan net.Conn
}

func (l *fakeListener) Accept() (net.Conn, error) {
	if c, ok := <-l.next; ok {
		return c, nil
	}
	return nil, net.ErrClosed
}

type fakeConn struct {
	net.Conn
	from, to string
	closed   bool
	bounded  bool // it was given a deadline for writes
}

func (c *fakeConn) RemoteAddr() net.Addr { a, _ := net.ResolveTCPAddr("tcp", c.from); return a }
func (c *fakeConn) LocalAddr() net.Addr  { a, _ := net.ResolveTCPAddr("tcp", c.to); return a }
func (c *fakeConn) Close() error         { c.closed = true; return nil }

func (c *fakeConn) SetWriteDeadline(t time.Time) error { c.bounded = !t.IsZero(); return nil }
func (c *fakeConn) Write(p []byte) (int, error)        { return len(p), nil }

// TestShareKnowsConnectionsByBothEnds: one client may connect from the same address and port to two addresses of the server.
func TestShareKnowsConnectionsByBothEnds(t *testing.T) {
	t.Parallel()
	fake := &fakeListener{next: make(chan net.Conn, 2)}
	listener := connection.Limit(fake, 8, time.Second)
	first, second := &fakeConn{from: "192.0.2.1:1", to: "192.0.2.8:443"}, &fakeConn{from: "192.0.2.1:1", to: "192.0.2.9:443"}
	fake.next <- first
	fake.next <- second
	var accepted []net.Conn
	for range 2 {
		c, err := listener.Accept()
		if err != nil {
			t.Fatal(err)
		}
		accepted = append(accepted, c)
	}
	listener.Share(first.LocalAddr(), first.from)
	for _, c := range accepted {
		if _, err := c.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
	}
	if !first.bounded || second.bounded {
		t.Errorf("bounded are the shared connection: %v, and the other one: %v", first.bounded, second.bounded)
	}
}

// TestRoomForOthers: one address takes half of the connections, and a connection that closes gives its place back.
func TestRoomForOthers(t *testing.T) {
	t.Parallel()
	fake := &fakeListener{next: make(chan net.Conn, 100)}
	listener := connection.Limit(fake, 8, time.Second)
	many, other := make([]*fakeConn, 6), &fakeConn{from: "192.0.2.2:1"}
	for i := range many {
		many[i] = &fakeConn{from: "192.0.2.1:1"}
		fake.next <- many[i]
	}
	fake.next <- other
	var accepted []net.Conn
	for len(accepted) == 0 || accepted[len(accepted)-1].RemoteAddr().String() != other.from {
		c, err := listener.Accept()
		if err != nil {
			t.Fatal(err)
		}
		accepted = append(accepted, c)
	}
	if len(accepted) != 5 {
		t.Errorf("%d connections were accepted, want 4 of one address and 1 of another", len(accepted))
	}
	for i, c := range many {
		if c.closed != (i >= 4) {
			t.Errorf("connection %d of the one address: closed is %v", i, c.closed)
		}
	}
	for range 2 { // the second time gives nothing back
		_ = accepted[0].Close()
	}
	for range 2 {
		fake.next <- &fakeConn{from: "192.0.2.1:1"}
	}
	if _, err := listener.Accept(); err != nil {
		t.Fatal(err)
	}
	close(fake.next)
	if _, err := listener.Accept(); err == nil {
		t.Error("a place was given back twice")
	}
}
