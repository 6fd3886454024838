package limits_test

import (
	"errors"
	"net"
	"os"
	"testing"
	"time"

	"lanyard.dev/internal/apiserver/limits"
)

// fakeListener accepts the connections that a test sends to next.
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

// fakeConn records writes and deadlines. It has the addresses, and returns the errors, that a test sets.
type fakeConn struct {
	net.Conn
	from, to              string
	closed                bool
	writes                int
	deadlines             []time.Time
	writeErr, deadlineErr error
}

func (c *fakeConn) Write(p []byte) (int, error) { c.writes++; return len(p), c.writeErr }
func (c *fakeConn) SetWriteDeadline(t time.Time) error {
	c.deadlines = append(c.deadlines, t)
	return c.deadlineErr
}

func (c *fakeConn) RemoteAddr() net.Addr { a, _ := net.ResolveTCPAddr("tcp", c.from); return a }
func (c *fakeConn) LocalAddr() net.Addr  { a, _ := net.ResolveTCPAddr("tcp", c.to); return a }
func (c *fakeConn) Close() error         { c.closed = true; return nil }

// TestShareDistinguishesServerAddresses shares one of two connections that have the same client address and port.
func TestShareDistinguishesServerAddresses(t *testing.T) {
	t.Parallel()
	fake := &fakeListener{next: make(chan net.Conn, 2)}
	listener := limits.NewListener(fake, 8, time.Second)
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
	if len(first.deadlines) != 1 || len(second.deadlines) != 0 {
		t.Errorf("deadlines of the shared connection: %v, of the other one: %v", first.deadlines, second.deadlines)
	}
}

// TestConnectionsPerAddress checks that one address gets half of the connections, and that closing a connection releases its
// place once.
func TestConnectionsPerAddress(t *testing.T) {
	t.Parallel()
	fake := &fakeListener{next: make(chan net.Conn, 100)}
	listener := limits.NewListener(fake, 8, time.Second)
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
	for range 2 { // the second call releases nothing
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
		t.Error("a place was released twice")
	}
}

// TestWritesToSharedConnections checks that each write has a deadline, unless the user of the connection has set one.
func TestWritesToSharedConnections(t *testing.T) {
	t.Parallel()
	broken := errors.New("broken")
	for _, tt := range []struct {
		name   string
		conn   fakeConn
		before func(net.Conn) // is called after the connection was accepted
		single bool           // whether the connection is not shared
		err    error
		writes int
		bounds int // deadlines set by Write
		closed bool
	}{
		{name: "shared", writes: 1, bounds: 1},
		{name: "not shared", single: true, writes: 1},
		{name: "not shared, too slow", single: true, conn: fakeConn{writeErr: os.ErrDeadlineExceeded}, err: os.ErrDeadlineExceeded, writes: 1},
		{name: "deadline set", before: func(c net.Conn) { _ = c.SetWriteDeadline(time.Now()) }, writes: 1},
		{name: "deadline removed", before: func(c net.Conn) { _ = c.SetWriteDeadline(time.Time{}) }, writes: 1, bounds: 1},
		{name: "no deadline can be set", conn: fakeConn{deadlineErr: broken}, err: broken, bounds: 1},
		{name: "too slow", conn: fakeConn{writeErr: os.ErrDeadlineExceeded}, err: os.ErrDeadlineExceeded, writes: 1, bounds: 1, closed: true},
		{name: "other error", conn: fakeConn{writeErr: broken}, err: broken, writes: 1, bounds: 1},
	} {
		const stall = time.Hour
		raw := &tt.conn
		raw.from, raw.to = "192.0.2.1:1", "192.0.2.9:443"
		fake := &fakeListener{next: make(chan net.Conn, 1)}
		fake.next <- raw
		listener := limits.NewListener(fake, 8, stall)
		c, err := listener.Accept()
		if err != nil {
			t.Fatal(err)
		}
		if !tt.single {
			listener.Share(raw.LocalAddr(), raw.from)
		}
		listener.Share(raw.LocalAddr(), "192.0.2.1:2") // a connection that does not exist
		if tt.before != nil {
			tt.before(c)
			raw.deadlines = nil
		}
		start := time.Now()
		if _, err := c.Write([]byte("x")); !errors.Is(err, tt.err) || raw.writes != tt.writes || raw.closed != tt.closed {
			t.Errorf("%s: Write = %v after %d writes, closed %v; want %v after %d, %v", tt.name, err, raw.writes, raw.closed, tt.err, tt.writes, tt.closed)
		}
		if len(raw.deadlines) != tt.bounds || tt.bounds > 0 && (raw.deadlines[0].Before(start.Add(stall)) || raw.deadlines[0].After(time.Now().Add(stall))) {
			t.Errorf("%s: deadlines %v, want %d, %v after %v", tt.name, raw.deadlines, tt.bounds, stall, start)
		}
	}
}
