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

// SmallBody is the largest body, in bytes, of a request that does not store the object in its body: a review, a token
// request, a binding, an eviction, or the options of a deletion. The largest useful one is a TokenReview of a 16 KiB token.
const SmallBody = 64 << 10

// retryAfterSeconds is the Retry-After of a request that found no room.
const retryAfterSeconds = 1

// RequestConfig configures a RequestLimiter. Every field is required.
type RequestConfig struct {
	// Reads and Writes are how many requests of each kind are served at the same time. Streams is how many requests are
	// served that last as long as the caller wants: watches and sessions with containers.
	Reads, Writes, Streams int
	// BodyBytes is the total size of the bodies of the requests in flight. It does not include bodies up to SmallBody.
	BodyBytes int64
	// MaxBodyBytes is the largest body of a request that stores the object in its body. Kubernetes' 3 MiB are more than
	// etcd stores, because an object takes less space in etcd than as JSON.
	MaxBodyBytes int64
	// Unstored reports whether the bodies of requests for a resource or a subresource are not stored.
	Unstored func(group, resource, subresource string) bool
	// LongRunning reports whether a request is one of Streams.
	LongRunning request.LongRunningRequestCheck
	Serializer  runtime.NegotiatedSerializer
}

// RequestLimiter limits the requests in flight of one server.
type RequestLimiter struct {
	config                 RequestConfig
	reads, writes, streams *Pool
	bodies                 *Pool
}

// NewRequestLimiter returns a limiter without any request in flight.
func NewRequestLimiter(c RequestConfig) *RequestLimiter {
	return &RequestLimiter{
		config: c, reads: NewPool(int64(c.Reads)), writes: NewPool(int64(c.Writes)), streams: NewPool(int64(c.Streams)),
		bodies: NewPool(c.BodyBytes),
	}
}

// Wrap returns a handler that serves with next the requests that find room. Administrators are not limited, because they
// can do everything anyway. Health checks are not limited, because a busy server is healthy.
func (l *RequestLimiter) Wrap(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		info, _ := request.RequestInfoFrom(r.Context())
		caller, _ := request.UserFrom(r.Context())
		if info == nil || caller == nil {
			responsewriters.InternalError(w, r, errors.New("the request has no request info or no user: the limits on requests in flight need both"))
			return
		}
		limit := l.bodyLimit(info)
		if r.ContentLength > limit {
			l.writeError(w, r, info, apierrors.NewRequestEntityTooLargeError(fmt.Sprintf("limit is %d", limit)))
			return
		}
		if r.ContentLength < 0 {
			r.Body = &boundedBody{ReadCloser: r.Body, limit: limit, left: limit}
		}
		if isHealthCheck(info) || isAdministrator(caller) {
			next.ServeHTTP(w, r)
			return
		}
		l.serve(w, r, info, callerOf(caller, r.RemoteAddr), classOf(caller, info), next)
	})
}

// serve serves a request with next, which holds a place and the room for its body until next returns.
func (l *RequestLimiter) serve(w http.ResponseWriter, r *http.Request, info *request.RequestInfo, caller Caller, class Class, next http.Handler) {
	places := l.poolFor(r, info)
	if !places.Acquire(caller, class, 1) {
		l.refuse(w, r, info)
		return
	}
	defer places.Release(caller, 1)
	if size := l.bodySize(r, info); size > 0 {
		if !l.bodies.Acquire(caller, class, size) {
			l.refuse(w, r, info)
			return
		}
		defer l.bodies.Release(caller, size)
	}
	next.ServeHTTP(w, r)
}

func (l *RequestLimiter) poolFor(r *http.Request, info *request.RequestInfo) *Pool {
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

// refuse responds to a request that found no room.
func (l *RequestLimiter) refuse(w http.ResponseWriter, r *http.Request, info *request.RequestInfo) {
	metrics.RecordDroppedRequest(r, info, metrics.APIServerComponent, !isRead(info))
	metrics.RecordRequestTermination(r, info, metrics.APIServerComponent, http.StatusTooManyRequests)
	l.writeError(w, r, info, apierrors.NewTooManyRequests("too many requests at the same time, please try again later", retryAfterSeconds))
}

func (l *RequestLimiter) writeError(w http.ResponseWriter, r *http.Request, info *request.RequestInfo, err error) {
	gv := schema.GroupVersion{Group: info.APIGroup, Version: info.APIVersion}
	responsewriters.ErrorNegotiated(err, l.config.Serializer, gv, w, r)
}

// isHealthCheck reports whether a request is for a health check that everybody may read. It is narrower than
// outage.IsHealthCheck: paths below, such as /readyz/etcd, are limited, because every path that is exempt can be
// requested without end and without a credential.
func isHealthCheck(info *request.RequestInfo) bool {
	switch info.Path {
	case "/livez", "/readyz", "/healthz":
		return !info.IsResourceRequest
	}
	return false
}

func isAdministrator(u user.Info) bool {
	return slices.Contains(u.GetGroups(), user.SystemPrivilegedGroup)
}

// callerOf returns the holder of the room that a request takes. A caller without a credential is identified by its address.
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

// bodyLimit returns the largest size of a request's body.
func (l *RequestLimiter) bodyLimit(info *request.RequestInfo) int64 {
	switch {
	case !info.IsResourceRequest, info.Verb == "delete", info.Verb == "deletecollection", isRead(info):
		return SmallBody
	case l.config.Unstored(info.APIGroup, info.Resource, info.Subresource):
		return SmallBody
	}
	return l.config.MaxBodyBytes
}

// bodySize returns how many bytes of BodyBytes a body takes: 0 up to SmallBody, since the number of requests bounds the small
// bodies well enough, and the largest size that is allowed if the length is unknown.
func (l *RequestLimiter) bodySize(r *http.Request, info *request.RequestInfo) int64 {
	size := r.ContentLength
	if size < 0 {
		size = l.bodyLimit(info)
	}
	if size <= SmallBody {
		return 0
	}
	return size
}

// boundedBody is a body of unknown length. Reading fails beyond the limit.
type boundedBody struct {
	io.ReadCloser
	limit, left int64
}

// Read implements io.Reader. It reads one byte more than the limit, to find out whether the body ends there.
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
