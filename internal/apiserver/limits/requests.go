package limits

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"

	coordinationv1 "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/authentication/serviceaccount"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/endpoints/handlers/responsewriters"
	"k8s.io/apiserver/pkg/endpoints/metrics"
	"k8s.io/apiserver/pkg/endpoints/request"
)

// SmallBody limits the body of a request that stores no object of its own: a review, a token request, a binding, an
// eviction, the options of a deletion. The largest that makes sense is a TokenReview of a 16 KiB token.
const SmallBody = 64 << 10

// retryAfterSeconds is when a refused caller should try again.
const retryAfterSeconds = 1

// RequestConfig says how much may be in flight. Every field is required.
type RequestConfig struct {
	// Reads and Writes are how many requests of each kind are served at the same time, and Streams how many that last as
	// long as their caller wants: watches, and conversations with nodes.
	Reads, Writes, Streams int
	// BodyBytes is how much the bodies of all requests may occupy together, as far as they are larger than SmallBody.
	BodyBytes int64
	// MaxBodyBytes limits one body of a kind that is stored.
	MaxBodyBytes int64
	// LongRunning picks the streams.
	LongRunning request.LongRunningRequestCheck
	Serializer  runtime.NegotiatedSerializer
}

// RequestLimiter is the limits of one server.
type RequestLimiter struct {
	config                 RequestConfig
	reads, writes, streams *Pool
	bodies                 *Pool
}

// NewRequestLimiter returns a limiter with nothing in flight.
func NewRequestLimiter(c RequestConfig) *RequestLimiter {
	return &RequestLimiter{
		config: c, reads: NewPool(int64(c.Reads)), writes: NewPool(int64(c.Writes)), streams: NewPool(int64(c.Streams)),
		bodies: NewPool(c.BodyBytes),
	}
}

// Wrap returns a handler that passes on what finds room. Administrators, who can do everything anyway, are not limited,
// and neither are questions about the server's health: a busy server is not an ill one.
func (l *RequestLimiter) Wrap(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		info, _ := request.RequestInfoFrom(r.Context())
		caller, _ := request.UserFrom(r.Context())
		if info == nil || caller == nil {
			responsewriters.InternalError(w, r, errors.New("a request came to its limits without its description or its user"))
			return
		}
		limit := bodyLimit(info, l.config.MaxBodyBytes)
		if r.ContentLength > limit {
			l.refuse(w, r, info, apierrors.NewRequestEntityTooLargeError(fmt.Sprintf("limit is %d", limit)))
			return
		}
		if r.ContentLength < 0 {
			r.Body = &boundedBody{ReadCloser: r.Body, limit: limit, left: limit}
		}
		if asksForHealth(info) || isAdministrator(caller) {
			next.ServeHTTP(w, r)
			return
		}
		l.serve(w, r, info, callerOf(caller, r.RemoteAddr), classOf(caller, info), next)
	})
}

// serve passes a request on while it holds its place and the room for its body.
func (l *RequestLimiter) serve(w http.ResponseWriter, r *http.Request, info *request.RequestInfo, caller Caller, class Class, next http.Handler) {
	places := l.placesFor(r, info)
	if !places.Acquire(caller, class, 1) {
		l.turnAway(w, r, info)
		return
	}
	defer places.Release(caller, 1)
	if size := l.bodySize(r, info); size > 0 {
		if !l.bodies.Acquire(caller, class, size) {
			l.turnAway(w, r, info)
			return
		}
		defer l.bodies.Release(caller, size)
	}
	next.ServeHTTP(w, r)
}

func (l *RequestLimiter) placesFor(r *http.Request, info *request.RequestInfo) *Pool {
	switch {
	case l.config.LongRunning(r, info):
		return l.streams
	case isRead(info):
		return l.reads
	}
	return l.writes
}

func isRead(info *request.RequestInfo) bool {
	return info.Verb == "get" || info.Verb == "list" || info.Verb == "watch"
}

// turnAway answers that there is no room.
func (l *RequestLimiter) turnAway(w http.ResponseWriter, r *http.Request, info *request.RequestInfo) {
	metrics.RecordDroppedRequest(r, info, metrics.APIServerComponent, !isRead(info))
	metrics.RecordRequestTermination(r, info, metrics.APIServerComponent, http.StatusTooManyRequests)
	l.refuse(w, r, info, apierrors.NewTooManyRequests("too many requests at the same time, please try again later", retryAfterSeconds))
}

func (l *RequestLimiter) refuse(w http.ResponseWriter, r *http.Request, info *request.RequestInfo, err error) {
	gv := schema.GroupVersion{Group: info.APIGroup, Version: info.APIVersion}
	responsewriters.ErrorNegotiated(err, l.config.Serializer, gv, w, r)
}

func asksForHealth(info *request.RequestInfo) bool {
	switch info.Path {
	case "/livez", "/readyz", "/healthz":
		return !info.IsResourceRequest
	}
	return false
}

func isAdministrator(u user.Info) bool {
	return slices.Contains(u.GetGroups(), user.SystemPrivilegedGroup)
}

// callerOf names who holds what a request takes. Callers without a credential are told apart by their address.
func callerOf(u user.Info, remoteAddr string) Caller {
	name := u.GetName()
	if name == user.Anonymous {
		return CallerAt(remoteAddr)
	}
	if rest, ok := strings.CutPrefix(name, serviceaccount.ServiceAccountUsernamePrefix); ok {
		tenant, _, _ := strings.Cut(rest, ":")
		return Caller{Name: name, Tenant: tenant}
	}
	return Caller{Name: name}
}

func classOf(u user.Info, info *request.RequestInfo) Class {
	switch {
	case slices.Contains(u.GetGroups(), user.NodesGroup):
		return Node
	case info.APIGroup == coordinationv1.GroupName && info.Resource == "leases",
		info.Resource == "serviceaccounts" && info.Subresource == "token":
		return Vital
	}
	return Common
}

// bodyLimit returns how large the body of a request may be. stored is the limit for objects that are stored; it is
// Kubernetes' 3 MiB, although etcd takes 1.5 MiB, because an object is smaller in etcd's form than as JSON.
func bodyLimit(info *request.RequestInfo, stored int64) int64 {
	switch {
	case !info.IsResourceRequest, info.Verb == "delete", info.Verb == "deletecollection", isRead(info):
		return SmallBody
	case info.APIGroup == "authentication.k8s.io", info.APIGroup == "authorization.k8s.io":
		return SmallBody
	}
	switch info.Subresource {
	case "token", "binding", "eviction", "exec", "attach", "portforward":
		return SmallBody
	}
	return stored
}

// bodySize returns what a body is counted as: nothing up to SmallBody, which the limit on places bounds well enough, and
// the most it may have if its length is not known.
func (l *RequestLimiter) bodySize(r *http.Request, info *request.RequestInfo) int64 {
	size := r.ContentLength
	if size < 0 {
		size = bodyLimit(info, l.config.MaxBodyBytes)
	}
	if size <= SmallBody {
		return 0
	}
	return size
}

// boundedBody ends a body of unknown length at the limit of its kind.
type boundedBody struct {
	io.ReadCloser
	limit, left int64
}

// Read implements io.Reader. One byte over the limit is read to learn that the body does not end there.
func (b *boundedBody) Read(p []byte) (int, error) {
	if b.left < 0 {
		return 0, apierrors.NewRequestEntityTooLargeError(fmt.Sprintf("limit is %d", b.limit))
	}
	if int64(len(p)) > b.left+1 {
		p = p[:b.left+1]
	}
	n, err := b.ReadCloser.Read(p)
	if b.left -= int64(n); b.left < 0 {
		return n - 1, apierrors.NewRequestEntityTooLargeError(fmt.Sprintf("limit is %d", b.limit))
	}
	return n, err
}
