package apiserver

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"k8s.io/apiserver/pkg/endpoints/request"

	"lanyard.dev/internal/apiserver/limits"
)

// shortDeadline is the deadline of answers in these tests. patience is how long the tests wait for an answer to end.
const (
	shortDeadline = 300 * time.Millisecond
	patience      = time.Minute
)

// slowServer serves /answer, /watch and /session, each with the handler.
func slowServer(t *testing.T, handler http.HandlerFunc) (server *httptest.Server, ended chan error) {
	t.Helper()
	ended = make(chan error, 100)
	server = httptest.NewUnstartedServer(nil)
	listener := limits.NewListener(server.Listener, 100, shortDeadline)
	server.Listener = listener
	chain := deadlines{
		body: shortDeadline, answer: shortDeadline, share: listener.Share,
		longRunning: func(_ *http.Request, info *request.RequestInfo) bool { return info.Verb != "get" },
	}.wrap(handler, handler)
	server.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		verb := map[string]string{"/answer": "get", "/watch": "watch", "/session": "connect"}[r.URL.Path]
		chain.ServeHTTP(w, r.WithContext(request.WithRequestInfo(r.Context(), &request.RequestInfo{Verb: verb})))
		ended <- nil
	})
	server.EnableHTTP2 = true
	server.StartTLS()
	t.Cleanup(server.Close)
	return server, ended
}

// dial opens a connection that does not read, with the smallest receive buffer.
func dial(t *testing.T, server *httptest.Server, protocol string) *tls.Conn {
	t.Helper()
	plain, err := net.Dial("tcp", server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = plain.Close() })
	if err := plain.(*net.TCPConn).SetReadBuffer(1); err != nil {
		t.Fatal(err)
	}
	conn := tls.Client(plain, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{protocol}})
	if err := conn.HandshakeContext(t.Context()); err != nil {
		t.Fatal(err)
	}
	return conn
}

// openHTTP2 opens an HTTP/2 connection with windows of this size, and requests the path on its first stream.
func openHTTP2(t *testing.T, server *httptest.Server, window uint32, path string) {
	t.Helper()
	conn := dial(t, server, "h2")
	var requests bytes.Buffer
	requests.WriteString(http2.ClientPreface)
	framer := http2.NewFramer(&requests, nil)
	var header bytes.Buffer
	encoder := hpack.NewEncoder(&header)
	for _, field := range [][2]string{{":method", "GET"}, {":scheme", "https"}, {":authority", "x"}, {":path", path}} {
		_ = encoder.WriteField(hpack.HeaderField{Name: field[0], Value: field[1]})
	}
	err := errors.Join(
		framer.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: window}),
		framer.WriteWindowUpdate(0, 1<<30),
		framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: header.Bytes(), EndStream: true, EndHeaders: true}),
	)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Write(requests.Bytes()); err != nil {
		t.Fatal(err)
	}
}

// TestUnreadAnswersEnd covers each way in which a client can keep an answer from being written.
func TestUnreadAnswersEnd(t *testing.T) {
	t.Parallel()
	endless := func(w http.ResponseWriter, _ *http.Request) {
		chunk := bytes.Repeat([]byte("x"), 1<<16)
		for {
			if _, err := w.Write(chunk); err != nil {
				return
			}
			if err := http.NewResponseController(w).Flush(); err != nil {
				return
			}
		}
	}
	ways := map[string]func(t *testing.T, server *httptest.Server, path string){
		"HTTP/1.1": func(t *testing.T, server *httptest.Server, path string) {
			t.Helper()
			if _, err := fmt.Fprintf(dial(t, server, "http/1.1"), "GET %s HTTP/1.1\r\nHost: x\r\n\r\n", path); err != nil {
				t.Fatal(err)
			}
		},
		"HTTP/2 with a closed window": func(t *testing.T, server *httptest.Server, path string) { t.Helper(); openHTTP2(t, server, 0, path) },
		"HTTP/2 with a blocked connection": func(t *testing.T, server *httptest.Server, path string) {
			t.Helper()
			openHTTP2(t, server, 1<<30, path)
		},
	}
	for way, start := range ways {
		for _, path := range []string{"/answer", "/watch"} {
			t.Run(way+path, func(t *testing.T) {
				t.Parallel()
				server, ended := slowServer(t, endless)
				start(t, server, path)
				select {
				case <-ended:
				case <-time.After(patience):
					t.Errorf("still being written after %v", patience)
				}
			})
		}
	}
}

// TestUnreadHijackedWatchesEnd checks watches over a WebSocket, which write to the connection and not to the response writer.
func TestUnreadHijackedWatchesEnd(t *testing.T) {
	t.Parallel()
	writers := map[string]func(net.Conn, *bufio.ReadWriter) io.Writer{
		"by the connection": func(c net.Conn, _ *bufio.ReadWriter) io.Writer { return c },
		"by the buffer":     func(_ net.Conn, b *bufio.ReadWriter) io.Writer { return b },
	}
	for name, writer := range writers {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server, ended := slowServer(t, func(w http.ResponseWriter, _ *http.Request) {
				conn, buffered, err := w.(http.Hijacker).Hijack()
				if err != nil {
					t.Error(err)
					return
				}
				defer conn.Close()
				chunk, out := bytes.Repeat([]byte("x"), 1<<16), writer(conn, buffered)
				for {
					if _, err := out.Write(chunk); err != nil {
						return
					}
				}
			})
			if _, err := io.WriteString(dial(t, server, "http/1.1"), "GET /watch HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
				t.Fatal(err)
			}
			select {
			case <-ended:
			case <-time.After(patience):
				t.Errorf("still being written after %v", patience)
			}
		})
	}
}

// TestUnreadRefusalsOfSessionsEnd checks that only a session that has begun has no deadline.
func TestUnreadRefusalsOfSessionsEnd(t *testing.T) {
	t.Parallel()
	server, ended := slowServer(t, func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusForbidden)
		_, _ = w.Write(bytes.Repeat([]byte("x"), 1<<16))
	})
	openHTTP2(t, server, 0, "/session")
	select {
	case <-ended:
	case <-time.After(patience):
		t.Errorf("still being written after %v", patience)
	}
}

// TestBodiesThatDoNotArriveEnd covers the deadline of reading.
func TestBodiesThatDoNotArriveEnd(t *testing.T) {
	t.Parallel()
	server, ended := slowServer(t, func(_ http.ResponseWriter, r *http.Request) { _, _ = io.Copy(io.Discard, r.Body) })
	if _, err := io.WriteString(dial(t, server, "http/1.1"), "POST /answer HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nx"); err != nil {
		t.Fatal(err)
	}
	select {
	case <-ended:
	case <-time.After(patience):
		t.Errorf("still being read after %v", patience)
	}
}

// TestIdleStreamsLast checks that a watch or a session with little traffic lasts longer than the deadline of an answer, even on a
// connection on which an earlier answer has set a deadline, and can be read to its end.
func TestIdleStreamsLast(t *testing.T) {
	t.Parallel()
	server, _ := slowServer(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/answer" {
			_, _ = io.WriteString(w, "line\n")
			return
		}
		for range 2 {
			_, _ = io.WriteString(w, "line\n")
			_ = http.NewResponseController(w).Flush()
			time.Sleep(2 * shortDeadline) // the time that passes is what is tested
		}
		_, _ = io.WriteString(w, "end\n")
	})
	http1 := server.Client().Transport.(*http.Transport).Clone()
	http1.TLSNextProto = map[string]func(string, *tls.Conn) http.RoundTripper{}
	http1.TLSClientConfig.NextProtos = []string{"http/1.1"}
	t.Cleanup(http1.CloseIdleConnections)
	for name, client := range map[string]*http.Client{"HTTP/1.1": {Transport: http1}, "HTTP/2": server.Client()} {
		for _, path := range []string{"/watch", "/session"} {
			t.Run(name+path, func(t *testing.T) {
				t.Parallel()
				for _, each := range []string{"/answer", path} {
					response, err := client.Get(server.URL + each)
					if err != nil {
						t.Fatal(err)
					}
					defer func() { _ = response.Body.Close() }()
					text, err := io.ReadAll(bufio.NewReader(response.Body))
					if err != nil || each == path && !strings.HasSuffix(string(text), "end\n") {
						t.Errorf("%s over %s: %q, %v", each, response.Proto, text, err)
					}
				}
			})
		}
	}
}
