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
	maxConnections = 10_000
	// unlimited is the number of open files of a process without a limit.
	unlimited = 1 << 20
)

// MaxConnections returns how many connections a server should accept: at most half as many as the process may have open
// files, because the storage fails if it cannot open files.
func MaxConnections() int { return min(maxConnections, openFiles()/2) }

// Listener accepts connections while there is room for them, and closes others at once. One address gets at most half of
// all connections, and fewer if other addresses want many as well.
type Listener struct {
	net.Listener
	stall time.Duration
	room  *Pool
	open  sync.Map // from endpoints to *conn
	warn  rate.Sometimes
}

// NewListener returns a listener that accepts connections from l up to the given number. stall is how long a write to a
// shared connection may take.
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
		// A connection has no class before its requests are authenticated. Node may fill the whole pool.
		if l.room.Acquire(from, Node, 1) {
			c := &conn{Conn: accepted, listener: l, endpoints: endpoints{accepted.LocalAddr().String(), remote}, from: from}
			l.open.Store(c.endpoints, c)
			return c, nil
		}
		_ = accepted.Close()
		l.warn.Do(func() {
			slog.New(logr.ToSlogHandler(klog.Background())).Warn("Closed a new connection: too many are open from its address or in total. Find the clients that hold them, or raise the limit of open files", "client", from.Name)
		})
	}
}

// endpoints are the addresses of a connection. Both are needed, because a client may use one address and port for connections
// to several addresses of the server.
type endpoints struct{ local, remote string }

// Share marks the connection between two addresses as one that carries several requests at the same time, as HTTP/2 does.
// The deadline of one request cannot end a write there, because other requests use the same connection. From now on, the
// listener closes the connection if a write takes too long.
func (l *Listener) Share(local net.Addr, remote string) {
	if c, ok := l.open.Load(endpoints{local.String(), remote}); ok {
		c.(*conn).shared.Store(true)
	}
}

// conn is a connection that holds a place in the listener until it is closed.
type conn struct {
	net.Conn
	listener  *Listener
	endpoints endpoints
	from      Caller
	closed    sync.Once
	shared    atomic.Bool
	bounded   atomic.Bool // whether its user has set a deadline for writes
}

// Write implements net.Conn. It closes a shared connection on which a write takes too long, since no request can use it any
// more.
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
		c.listener.open.CompareAndDelete(c.endpoints, c)
		c.listener.room.Release(c.from, 1)
	})
	return c.Conn.Close()
}
