package loopback

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"k8s.io/apiserver/pkg/authentication/user"

	"lanyard.dev/internal/files"
)

const (
	// callTimeout bounds one call, even if the handler does not heed its context. It is the time that the server gives
	// a request.
	callTimeout = time.Minute
	// maxRequestBytes bounds the body of a request: Kubernetes' limit for an object.
	maxRequestBytes = 3 << 20
	// maxAnswerBytes bounds the body of an answer. Lists that may be longer are read in pages.
	maxAnswerBytes = 64 << 20
)

var (
	errTimeout  = fmt.Errorf("the server did not answer within %v", callTimeout)
	errPanicked = errors.New("the server panicked; its log has the cause")
	errTooLarge = fmt.Errorf("the answer is larger than %d bytes", maxAnswerBytes)
	errWatch    = errors.New("this client does not watch: listen to the feed of the resource")
)

// transport calls the handler as one user.
type transport struct {
	loopback *Loopback
	who      user.Info
	// timeout and maxAnswer replace the constants; 0 does not. Tests alone set them.
	timeout   time.Duration
	maxAnswer int
}

// RoundTrip implements http.RoundTripper.
func (t *transport) RoundTrip(r *http.Request) (*http.Response, error) {
	body, err := readBody(r)
	if err != nil {
		return nil, err
	}
	if r.URL.Query().Has("watch") {
		return nil, errWatch
	}
	handler, end, err := t.loopback.begin()
	if err != nil {
		return nil, err
	}
	ctx, cancel := t.context(r.Context())
	defer cancel()
	answered := make(chan result, 1)
	go func() {
		defer end()
		answered <- serve(handler, incoming(ctx, r, body), cmp.Or(t.maxAnswer, maxAnswerBytes))
	}()
	select {
	case got := <-answered:
		if got.err != nil {
			return nil, got.err
		}
		return got.answer.response(r), nil
	case <-ctx.Done():
		// The goroutine that serves the request ends later. Nothing reads its answer.
		return nil, context.Cause(ctx)
	}
}

func readBody(r *http.Request) ([]byte, error) {
	if r.Body == nil {
		return nil, nil
	}
	defer func() { _ = r.Body.Close() }()
	return files.ReadAll(r.Body, "the request", maxRequestBytes)
}

// context returns the context of the request inside the server. It has the caller's cancellation and deadline and none of its
// values: the caller may itself serve a request, whose audit event, user and description are in its context and would be treated
// as the values of this call.
func (t *transport) context(caller context.Context) (context.Context, context.CancelFunc) {
	ctx := context.WithValue(context.Background(), identityKey{}, t.who)
	ctx, cancel := context.WithCancelCause(ctx)
	ctx, stop := context.WithTimeoutCause(ctx, cmp.Or(t.timeout, callTimeout), errTimeout)
	if deadline, ok := caller.Deadline(); ok {
		var stopEarlier context.CancelFunc
		ctx, stopEarlier = context.WithDeadline(ctx, deadline)
		later := stop
		stop = func() { stopEarlier(); later() }
	}
	unlink := context.AfterFunc(caller, func() { cancel(context.Cause(caller)) })
	return ctx, func() { unlink(); stop(); cancel(nil) }
}

// incoming is the request as the server sees it.
func incoming(ctx context.Context, r *http.Request, body []byte) *http.Request {
	in := &http.Request{
		Method: r.Method, URL: r.URL, RequestURI: r.URL.RequestURI(), Host: r.URL.Host, Header: r.Header.Clone(),
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Body: http.NoBody, ContentLength: int64(len(body)),
	}
	if len(body) > 0 {
		in.Body = io.NopCloser(bytes.NewReader(body))
	}
	return in.WithContext(ctx)
}

// result is the result of a call.
type result struct {
	answer *answer
	err    error
}

func serve(h http.Handler, r *http.Request, limit int) (got result) {
	defer func() {
		if recover() != nil { // the chain has logged the cause
			got = result{err: errPanicked}
		}
	}()
	a := &answer{header: http.Header{}, limit: limit, deletion: r.Method == http.MethodDelete}
	h.ServeHTTP(a, r)
	if a.tooLarge {
		return result{err: errTooLarge}
	}
	return result{answer: a}
}

// answer is a response writer that keeps what is written, up to a limit.
type answer struct {
	header   http.Header
	sent     http.Header // the headers as they were when the status was written
	status   int
	body     bytes.Buffer
	limit    int
	tooLarge bool
	// deletion is whether the request deletes. What was deleted is not kept, since no client method returns it, and it
	// may be a whole collection.
	deletion bool
}

// Header implements http.ResponseWriter.
func (a *answer) Header() http.Header { return a.header }

// WriteHeader implements http.ResponseWriter.
func (a *answer) WriteHeader(status int) {
	if a.status == 0 {
		a.status, a.sent = status, a.header.Clone()
	}
}

// Write implements http.ResponseWriter.
func (a *answer) Write(p []byte) (int, error) {
	a.WriteHeader(http.StatusOK)
	switch {
	case a.deletion && a.status < http.StatusMultipleChoices:
		return len(p), nil
	case a.body.Len()+len(p) > a.limit:
		a.tooLarge = true
		return 0, errTooLarge
	}
	return a.body.Write(p)
}

// response returns the answer as a client reads it. It has no Retry-After, because the client would sleep and try again. A
// controller has a queue for that, and behind a nested call a user waits.
func (a *answer) response(r *http.Request) *http.Response {
	a.WriteHeader(http.StatusOK)
	a.sent.Del("Retry-After")
	return &http.Response{
		Status: http.StatusText(a.status), StatusCode: a.status, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: a.sent, Body: io.NopCloser(&a.body), ContentLength: int64(a.body.Len()), Request: r,
	}
}
