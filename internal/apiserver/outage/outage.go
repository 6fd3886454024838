// Package outage defines what the server does while it cannot confirm that its knowledge is up to date, as when etcd does
// not answer, and while a service that it needs does not answer.
//
// It neither allows nor denies a request that it cannot decide. A denial would be wrong, and clients would act on it for
// good: they throw away a token that is refused with 401. The response is 503 with Retry-After, and clients repeat the
// request. Health checks are the exception: they are decided, served and recorded as far as possible, so that an operator
// and a supervisor can see what is wrong.
//
// The package is a small one of its own because authentication, authorization, admission and the registries use it, and it
// depends on none of them.
package outage

import (
	"errors"
	"net/http"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	utilerrors "k8s.io/apimachinery/pkg/util/errors"
)

const (
	// retryAfterSeconds is short, because most outages concern one etcd member or one connection.
	retryAfterSeconds = 1

	message = "the server cannot confirm now that its data is up to date; try again"
)

// Error is the reason why a request cannot be decided. Its text is for the log. Clients receive its Status, which has no
// details.
type Error struct {
	message string // for clients
	cause   error
}

var _ apierrors.APIStatus = &Error{}

// New returns an Error with a cause, or nil if the cause is nil.
func New(cause error) error { return NewWith(message, cause) }

// NewWith is New with a text for clients, which must not contain the cause.
func NewWith(message string, cause error) error {
	if cause == nil {
		return nil
	}
	return &Error{message, cause}
}

// Error implements error.
func (e *Error) Error() string { return "cannot be decided now: " + e.cause.Error() }

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.cause }

// Status implements errors.APIStatus.
func (e *Error) Status() metav1.Status {
	return metav1.Status{
		Status: metav1.StatusFailure, Code: http.StatusServiceUnavailable, Reason: metav1.StatusReasonServiceUnavailable,
		Message: e.message, Details: &metav1.StatusDetails{RetryAfterSeconds: retryAfterSeconds},
	}
}

// Of returns the Error in an error's tree, or nil. If one of several authenticators cannot decide and the others refuse,
// the request is undecided.
func Of(err error) *Error {
	var found *Error
	if errors.As(err, &found) {
		return found
	}
	var several utilerrors.Aggregate // errors.As does not look into it
	if errors.As(err, &several) {
		for _, one := range several.Errors() {
			if found = Of(one); found != nil {
				return found
			}
		}
	}
	return nil
}

// IsHealthCheck reports whether a path that names no resource is the path of a health check: /livez, /readyz or /healthz, or a
// single check below one of them.
func IsHealthCheck(path string) bool {
	root, _, _ := strings.Cut(strings.TrimPrefix(path, "/"), "/")
	return root == "livez" || root == "readyz" || root == "healthz"
}
