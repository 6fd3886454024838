package apiserver

import (
	"bufio"
	"net"
	"net/http"
	"sync"
	"time"

	"k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/apiserver/pkg/endpoints/responsewriter"
	"k8s.io/klog/v2"
)

// writeGrace is how long after the deadline of a request the server may still write that the request failed.
const writeGrace = 5 * time.Second

// deadlines bound the reading of request bodies and the writing of answers. The deadline in a request's context does
// not interrupt these, so a client that sends or reads a byte a minute would occupy one of the requests in flight.
//
// The whole body must arrive, and the client must read the whole answer, in time. A watch has no deadline, but the client must
// read each of its writes within the time of an answer. A session with a node has no deadline either, but an answer that refuses
// a session has the deadline of other answers.
type deadlines struct {
	body, answer time.Duration
	longRunning  request.LongRunningRequestCheck
	// share is called for requests over HTTP/2, which share connections. A deadline ends a write that waits for the
	// client to open the window of its stream, but not one that waits for the connection. The connection must bound the
	// latter.
	share shareFunc
}

// wrap returns a handler that serves watches and sessions with long, and other requests with short.
func (d deadlines) wrap(short, long http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		controller := http.NewResponseController(w)
		if r.ContentLength != 0 {
			logDeadline(controller.SetReadDeadline(time.Now().Add(d.body)))
		}
		if local, ok := r.Context().Value(http.LocalAddrContextKey).(net.Addr); ok && r.ProtoMajor == 2 {
			d.share(local, r.RemoteAddr)
		}
		info, ok := request.RequestInfoFrom(r.Context())
		if !ok || !d.longRunning(r, info) {
			logDeadline(controller.SetWriteDeadline(time.Now().Add(d.answer)))
			short.ServeHTTP(w, r)
			return
		}
		if info.Verb != "watch" {
			long.ServeHTTP(responsewriter.WrapForHTTP1Or2(&sessionWriter{ResponseWriter: w, timeout: d.answer}), r)
			return
		}
		paced := newPacedWriter(w, d.answer)
		defer paced.end()
		long.ServeHTTP(responsewriter.WrapForHTTP1Or2(paced), r)
	})
}

func logDeadline(err error) {
	if err != nil {
		klog.V(4).InfoS("Could not bound reading or writing a request", "err", err)
	}
}

// sessionWriter is the response writer of a session. It sets a deadline for an answer that refuses the session.
type sessionWriter struct {
	http.ResponseWriter
	timeout time.Duration
}

var _ responsewriter.UserProvidedDecorator = &sessionWriter{}

// Unwrap implements responsewriter.UserProvidedDecorator.
func (s *sessionWriter) Unwrap() http.ResponseWriter { return s.ResponseWriter }

// WriteHeader implements http.ResponseWriter.
func (s *sessionWriter) WriteHeader(code int) {
	if code >= http.StatusMultipleChoices {
		logDeadline(http.NewResponseController(s.ResponseWriter).SetWriteDeadline(time.Now().Add(s.timeout)))
	}
	s.ResponseWriter.WriteHeader(code)
}

// pacedWriter is the response writer of a watch. It bounds the time of each write, and not the time between writes.
type pacedWriter struct {
	http.ResponseWriter
	timeout time.Duration

	mu    sync.Mutex
	ended bool
	timer *time.Timer // runs during a write
}

var _ responsewriter.UserProvidedDecorator = &pacedWriter{}

func newPacedWriter(w http.ResponseWriter, timeout time.Duration) *pacedWriter {
	p := &pacedWriter{ResponseWriter: w, timeout: timeout}
	p.timer = time.AfterFunc(timeout, p.giveUp)
	p.timer.Stop()
	return p
}

// Unwrap implements responsewriter.UserProvidedDecorator.
func (p *pacedWriter) Unwrap() http.ResponseWriter { return p.ResponseWriter }

// Write implements http.ResponseWriter.
func (p *pacedWriter) Write(data []byte) (int, error) {
	p.timer.Reset(p.timeout)
	defer p.timer.Stop()
	return p.ResponseWriter.Write(data)
}

// Hijack implements http.Hijacker. A watch over a WebSocket writes to the connection itself, which has the same bound.
func (p *pacedWriter) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, buffered, err := http.NewResponseController(p.ResponseWriter).Hijack()
	if err != nil {
		return nil, nil, err
	}
	paced := &pacedConn{Conn: conn, timeout: p.timeout}
	return paced, bufio.NewReadWriter(buffered.Reader, bufio.NewWriter(paced)), nil
}

// pacedConn is a connection that bounds the time of each write.
type pacedConn struct {
	net.Conn
	timeout time.Duration
}

// Write implements net.Conn.
func (c *pacedConn) Write(data []byte) (int, error) {
	if err := c.SetWriteDeadline(time.Now().Add(c.timeout)); err != nil {
		return 0, err
	}
	return c.Conn.Write(data)
}

// Flush implements http.Flusher.
func (p *pacedWriter) Flush() {
	p.timer.Reset(p.timeout)
	defer p.timer.Stop()
	logDeadline(http.NewResponseController(p.ResponseWriter).Flush())
}

// giveUp makes the current write fail, and all later ones.
func (p *pacedWriter) giveUp() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.ended { // a writer must not be used once its handler has returned
		logDeadline(http.NewResponseController(p.ResponseWriter).SetWriteDeadline(time.Now().Add(-time.Second)))
	}
}

// end stops the timer for good, and bounds what the server itself writes after the handler.
func (p *pacedWriter) end() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ended = true
	p.timer.Stop()
	logDeadline(http.NewResponseController(p.ResponseWriter).SetWriteDeadline(time.Now().Add(writeGrace)))
}
