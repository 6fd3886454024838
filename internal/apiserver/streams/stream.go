package streams

import (
	"bufio"
	"context"
	"errors"
	"net"
	"net/http"
	"time"

	"k8s.io/apiserver/pkg/audit"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/apiserver/pkg/endpoints/handlers/responsewriters"
	"k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/apiserver/pkg/endpoints/responsewriter"
)

const (
	// endedBy is the annotation of an audit event that has the reason.
	endedBy = "identity.lanyard.dev/ended-by"
	// endGrace is how long the handler of a stream that was ended may go on writing to the client. Usually it ends at once, and
	// in the way that its protocol defines. It does not while it waits for a client that does not read, or for a client that does
	// not write, as the library's tunnel for ports does.
	endGrace = 250 * time.Millisecond
)

var errEnded = errors.New("the caller of this watch or session is no longer accepted")

// stream is an open stream.
type stream struct {
	registry  *Registry
	presented Presented
	began     uint64 // changes when the request arrived: what happened before needs no check

	// Register sets these.
	ctx    context.Context
	cancel context.CancelCauseFunc
	writer http.ResponseWriter

	// These are guarded by the registry's mu.
	groups []*group
	ended  bool
	conn   net.Conn // if the handler took the connection over
}

type streamKey struct{}

func streamOf(ctx context.Context) *stream {
	s, _ := ctx.Value(streamKey{}).(*stream)
	return s
}

// Note returns a handler that notes the credentials of streams. It must come before authentication, which removes tokens from
// requests.
func (r *Registry) Note(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		s := &stream{registry: r, began: r.changes.Load(), presented: r.Present(req)}
		next.ServeHTTP(w, req.WithContext(context.WithValue(req.Context(), streamKey{}, s)))
	})
}

// Register returns a handler that checks streams while next serves them. It must come after authentication, and before
// impersonation and authorization.
func (r *Registry) Register(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		s, who := streamOf(req.Context()), (user.Info)(nil)
		if s != nil {
			who, _ = request.UserFrom(req.Context())
		}
		if who == nil {
			responsewriters.InternalError(w, req, errors.New("the request has no noted credential or no user: an open stream needs both"))
			return
		}
		s.ctx, s.cancel = context.WithCancelCause(req.Context())
		defer s.cancel(nil)
		s.writer = w
		defer r.leave(s)
		r.join(s, credentialGroup(s.presented, who))
		s.presented = nil // the group has one for all its streams
		next.ServeHTTP(responsewriter.WrapForHTTP1Or2(&writer{w, s}), req.WithContext(s.ctx))
	})
}

// finish ends the stream, and reports whether it was open. The audit event of its end has the reason. The registry's mu is
// held, so the handler has not returned.
func (s *stream) finish(why Reason) bool {
	if s.ended {
		return false
	}
	s.ended = true
	audit.AddAuditAnnotation(s.ctx, endedBy, string(why))
	s.cancel(errEnded)
	if conn := s.conn; conn != nil {
		s.registry.Clock.AfterFunc(endGrace, func() { _ = conn.Close() })
	} else {
		_ = http.NewResponseController(s.writer).SetWriteDeadline(time.Now().Add(endGrace))
	}
	return true
}

// writer is the response writer of a stream.
type writer struct {
	http.ResponseWriter
	stream *stream
}

var _ responsewriter.UserProvidedDecorator = &writer{}

// Unwrap implements responsewriter.UserProvidedDecorator.
func (w *writer) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// Hijack implements http.Hijacker. It notes the connection, which then is not closed at the end of the request's context.
func (w *writer) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, buffered, err := http.NewResponseController(w.ResponseWriter).Hijack()
	if err != nil {
		return nil, nil, err
	}
	s := w.stream
	s.registry.mu.Lock()
	s.conn = conn
	ended := s.ended
	s.registry.mu.Unlock()
	if ended {
		_ = conn.Close()
		return nil, nil, errEnded
	}
	return conn, buffered, nil
}

// Recorder is an authorizer that records, for each stream, the requests that it allows.
type Recorder struct {
	authorizer.UnconditionalAuthorizer
}

// Authorize implements authorizer.UnconditionalAuthorizer.
func (a Recorder) Authorize(ctx context.Context, of authorizer.Attributes) (authorizer.Decision, string, error) {
	decision, reason, err := a.UnconditionalAuthorizer.Authorize(ctx, of)
	if decision == authorizer.DecisionAllow {
		if s := streamOf(ctx); s != nil && s.cancel != nil {
			s.registry.join(s, s.registry.rightGroup(of))
		}
	}
	return decision, reason, err
}
