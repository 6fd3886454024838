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
	from   string
	closed bool
}

func (c *fakeConn) RemoteAddr() net.Addr { a, _ := net.ResolveTCPAddr("tcp", c.from); return a }
func (c *fakeConn) Close() error         { c.closed = true; return nil }

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
