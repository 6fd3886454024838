package streams

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"
)

// serveOne serves one stream at a real server, and sends its request. It returns the connection of the client.
func (f *fixture) serveOne(t *testing.T, serve http.HandlerFunc) net.Conn {
	t.Helper()
	f.chain = f.Note(authenticate(f.Register(serve)))
	server := httptest.NewServer(f.chain)
	t.Cleanup(server.Close)
	conn, err := net.Dial("tcp", server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	if _, err := io.WriteString(conn, "GET / HTTP/1.1\r\nHost: x\r\nAuthorization: jane\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	return conn
}

// TestTakenConnection checks that a connection which the handler took over is closed, although the handler waits for the
// client and does not heed the context of the request.
func TestTakenConnection(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	taken, ended := make(chan struct{}), make(chan error, 1)
	client := f.serveOne(t, func(w http.ResponseWriter, _ *http.Request) {
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			ended <- err
			return
		}
		close(taken)
		_, err = conn.Read(make([]byte, 1))
		ended <- err
	})
	<-taken
	f.set(func() { f.credentials["jane"] = errRefused })
	f.want("a taken connection", f.check(), Credential)
	f.clock.Step(endGrace)
	if err := <-ended; err == nil {
		t.Error("the handler goes on")
	}
	if _, err := client.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("the client reads %v, want the end", err)
	}
}

// TestConnectionTakenTooLate checks that a handler cannot take the connection of a stream that was ended.
func TestConnectionTakenTooLate(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	begun, ended := make(chan struct{}), make(chan error, 1)
	client := f.serveOne(t, func(w http.ResponseWriter, r *http.Request) {
		close(begun)
		<-r.Context().Done()
		_, _, err := http.NewResponseController(w).Hijack()
		ended <- err
	})
	<-begun
	f.set(func() { f.credentials["jane"] = errRefused })
	f.want("a stream", f.check(), Credential)
	if err := <-ended; err != errEnded {
		t.Errorf("got %v, want %v", err, errEnded)
	}
	if _, err := client.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("the client reads %v, want the end", err)
	}
}

// TestClientThatDoesNotRead checks that a handler which waits for its client to read is interrupted.
func TestClientThatDoesNotRead(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	writing, ended := make(chan struct{}), make(chan error, 1)
	client := f.serveOne(t, func(w http.ResponseWriter, _ *http.Request) {
		close(writing)
		for {
			if _, err := w.Write(make([]byte, 1<<20)); err != nil {
				ended <- err
				return
			}
		}
	})
	<-writing
	f.set(func() { f.credentials["jane"] = errRefused })
	f.want("a slow client", f.check(), Credential)
	select {
	case <-ended:
	case <-time.After(time.Minute):
		t.Error("the handler goes on")
	}
	_, _ = io.Copy(io.Discard, bufio.NewReader(client))
}
