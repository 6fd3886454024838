package inflight

import (
	"errors"
	"fmt"
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

// retryAfterSeconds is when a refused caller should try again.
const retryAfterSeconds = 1

// Config says how much may be in flight. Every field is required.
type Config struct {
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

// Limiter is the limits of one server.
type Limiter struct {
	config                 Config
	reads, writes, streams *Pool
	bodies                 *Pool
}

// New returns a limiter with nothing in flight.
func New(c Config) *Limiter {
	return &Limiter{
		config: c, reads: NewPool(int64(c.Reads)), writes: NewPool(int64(c.Writes)), streams: NewPool(int64(c.Streams)),
		bodies: NewPool(c.BodyBytes),
	}
}

// Wrap returns a handler that passes on what finds room. Administrators, who can do everything anyway, are not limited,
// and neither are questions about the server's health: a busy server is not an ill one.
func (l *Limiter) Wrap(next http.Handler) http.Handler {
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
func (l *Limiter) serve(w http.ResponseWriter, r *http.Request, info *request.RequestInfo, caller Caller, class Class, next http.Handler) {
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

func (l *Limiter) placesFor(r *http.Request, info *request.RequestInfo) *Pool {
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
func (l *Limiter) turnAway(w http.ResponseWriter, r *http.Request, info *request.RequestInfo) {
	metrics.RecordDroppedRequest(r, info, metrics.APIServerComponent, !isRead(info))
	metrics.RecordRequestTermination(r, info, metrics.APIServerComponent, http.StatusTooManyRequests)
	l.refuse(w, r, info, apierrors.NewTooManyRequests("too many requests at the same time, please try again later", retryAfterSeconds))
}

func (l *Limiter) refuse(w http.ResponseWriter, r *http.Request, info *request.RequestInfo, err error) {
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
