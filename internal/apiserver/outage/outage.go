// Package outage answers requests that this server cannot decide now, since it cannot confirm that what it knows is up
// to date.
//
// Such a request is neither allowed nor denied. A denial would be wrong and lasting: clients throw a token away that is
// answered with 401. So the answer is 503 with Retry-After, which clients repeat.
package outage

import (
	"errors"
	"net/http"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	utilerrors "k8s.io/apimachinery/pkg/util/errors"
)

const (
	// retryAfterSeconds is short: most outages are those of one etcd member or one connection.
	retryAfterSeconds = 1

	message = "the server cannot confirm now that what it knows is up to date; try again"
)

// Error is the reason why nothing can be decided. Its text is for the log; clients are answered with its Status, which
// gives no detail.
type Error struct{ cause error }

var _ apierrors.APIStatus = &Error{}

// New returns an Error for a cause, or nil for nil.
func New(cause error) error {
	if cause == nil {
		return nil
	}
	return &Error{cause}
}

// Error implements error.
func (e *Error) Error() string { return "cannot be decided now: " + e.cause.Error() }

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.cause }

// Status implements errors.APIStatus.
func (*Error) Status() metav1.Status {
	return metav1.Status{
		Status: metav1.StatusFailure, Code: http.StatusServiceUnavailable, Reason: metav1.StatusReasonServiceUnavailable,
		Message: message, Details: &metav1.StatusDetails{RetryAfterSeconds: retryAfterSeconds},
	}
}

// Of returns the Error in an error's tree, or nil. Where several authenticators were asked, one of them may be unable to
// decide while the others refuse: then the request is undecided.
func Of(err error) *Error {
	var found *Error
	if errors.As(err, &found) {
		return found
	}
	var several utilerrors.Aggregate // which errors.As does not look into
	if errors.As(err, &several) {
		for _, one := range several.Errors() {
			if found = Of(one); found != nil {
				return found
			}
		}
	}
	return nil
}
