package limits

import (
	"errors"
	"log/slog"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-logr/logr"
	"golang.org/x/time/rate"
	"k8s.io/klog/v2"
)

const (
	most = 10_000
	// unlimited stands for as many files as anybody may open.
	unlimited = 1 << 20
)

// MaxConnections returns how many connections a server should accept: no more than half of the files that the process may have
// open, because storage needs files as well and fails without.
func MaxConnections() int { return min(most, openFiles()/2) }

// Listener accepts connections while there is room for them, and closes others at once. One address gets half of all
// connections at most, less where others want many too.
type Listener struct {
	net.Listener
	stall time.Duration
	room  *Pool
	open  sync.Map // by ends, to *conn
	warn  rate.Sometimes
}

// NewListener returns a listener for at most so many connections. stall is how long one write to a shared connection may take.
func NewListener(l net.Listener, connections int, stall time.Duration) *Listener {
	return &Listener{Listener: l, stall: stall, room: NewPool(int64(connections)), warn: rate.Sometimes{Interval: 10 * time.Second}}
}

// Accept implements net.Listener.
func (l *Listener) Accept() (net.Conn, error) {
	for {
		accepted, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		remote := accepted.RemoteAddr().String()
		from := CallerAt(remote)
		if l.room.Acquire(from, Node, 1) {
			c := &conn{Conn: accepted, listener: l, ends: ends{accepted.LocalAddr().String(), remote}, from: from}
			l.open.Store(c.ends, c)
			return c, nil
		}
		_ = accepted.Close()
		l.warn.Do(func() {
			slog.New(logr.ToSlogHandler(klog.Background())).Warn("Closed a new connection: too many are open from its address, or in all. Raise the limit of open files, or find who holds them", "client", from.Name)
		})
	}
}

// ends are the addresses of a connection. A client may connect from one address and port to several of the server's.
type ends struct{ local, remote string }

// Share tells the listener that the connection between these addresses carries several requests at the same time, as
// with HTTP/2. A request's own deadline cannot end a write there, because the others wait for the same connection. From
// now on the connection ends when a write is not taken in time.
func (l *Listener) Share(local net.Addr, remote string) {
	if c, ok := l.open.Load(ends{local.String(), remote}); ok {
		c.(*conn).shared.Store(true)
	}
}

// conn is a connection that holds its place until it is closed.
type conn struct {
	net.Conn
	listener *Listener
	ends     ends
	from     Caller
	closed   sync.Once
	shared   atomic.Bool
	bounded  atomic.Bool // its user has set a deadline for writes
}

// Write implements net.Conn. After a write that was not taken in time the connection is of no use to anybody.
func (c *conn) Write(p []byte) (int, error) {
	if !c.shared.Load() || c.bounded.Load() {
		return c.Conn.Write(p)
	}
	if err := c.Conn.SetWriteDeadline(time.Now().Add(c.listener.stall)); err != nil {
		return 0, err
	}
	n, err := c.Conn.Write(p)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		_ = c.Close()
	}
	return n, err
}

// SetWriteDeadline implements net.Conn.
func (c *conn) SetWriteDeadline(t time.Time) error {
	c.bounded.Store(!t.IsZero())
	return c.Conn.SetWriteDeadline(t)
}

// Close implements net.Conn.
func (c *conn) Close() error {
	c.closed.Do(func() {
		c.listener.open.CompareAndDelete(c.ends, c)
		c.listener.room.Release(c.from, 1)
	})
	return c.Conn.Close()
}
