package server

import (
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"
)

// TestAnswersEnd checks that a request ends also if the client does not read the answer or does not send the body.
func TestAnswersEnd(t *testing.T) {
	t.Parallel()
	ended := make(chan struct{}, 2)
	server := httptest.NewServer(withDeadlines(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() { ended <- struct{}{} }()
		if _, err := io.Copy(io.Discard, r.Body); err != nil {
			return
		}
		for chunk := make([]byte, 1<<16); ; {
			if _, err := w.Write(chunk); err != nil {
				return
			}
		}
	}), 200*time.Millisecond))
	t.Cleanup(server.Close)
	for name, request := range map[string]string{
		"an answer that the client does not read": "GET / HTTP/1.1\r\nHost: x\r\n\r\n",
		"a body that does not arrive":             "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nx",
	} {
		conn, err := net.Dial("tcp", server.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = conn.Close() }()
		if _, err := io.WriteString(conn, request); err != nil {
			t.Fatal(err)
		}
		select {
		case <-ended:
		case <-time.After(30 * time.Second):
			t.Errorf("%s: the request did not end", name)
		}
	}
}
