package outage_test

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	utilerrors "k8s.io/apimachinery/pkg/util/errors"

	"lanyard.dev/internal/apiserver/outage"
)

// TestOf checks that an Error is found wherever it is in the tree of an error.
func TestOf(t *testing.T) {
	t.Parallel()
	cause, refusal := errors.New("pods: storage is behind"), errors.New("invalid signature")
	undecided := outage.New(cause)
	for _, test := range []struct {
		name string
		err  error
		want bool
	}{
		{"nil", nil, false},
		{"a refusal", refusal, false},
		{"itself", undecided, true},
		{"wrapped", fmt.Errorf("client certificate: %w", undecided), true},
		{"joined", errors.Join(refusal, undecided), true},
		{"among refusals", utilerrors.NewAggregate([]error{refusal, undecided}), true},
		{"deep among refusals", utilerrors.NewAggregate([]error{refusal, utilerrors.NewAggregate([]error{refusal, undecided})}), true},
		{"wrapped among refusals", fmt.Errorf("tokens: %w", utilerrors.NewAggregate([]error{undecided, refusal})), true},
		{"refusals only", utilerrors.NewAggregate([]error{refusal, refusal}), false},
	} {
		if got := outage.Of(test.err); (got != nil) != test.want {
			t.Errorf("%s: %v, want found=%v", test.name, got, test.want)
		}
	}
	if outage.New(nil) != nil {
		t.Error("New(nil) is not nil")
	}
}

// TestStatusHidesTheCause checks that the log has the cause and that clients do not.
func TestStatusHidesTheCause(t *testing.T) {
	t.Parallel()
	cause := errors.New("pods: storage is behind")
	err := outage.New(cause)
	if !errors.Is(err, cause) || !strings.Contains(err.Error(), cause.Error()) {
		t.Errorf("the text for the log is %q", err)
	}
	status := outage.Of(err).Status()
	if !apierrors.IsServiceUnavailable(err) || status.Code != http.StatusServiceUnavailable || status.Details.RetryAfterSeconds != 1 {
		t.Errorf("status %+v", status)
	}
	if text := fmt.Sprintf("%+v %+v", status, status.Details); strings.Contains(text, "pods") || strings.Contains(text, "storage") {
		t.Errorf("clients receive %s", text)
	}
}

// TestIsHealthCheck checks that only the three health checks and what is below them match.
func TestIsHealthCheck(t *testing.T) {
	t.Parallel()
	for path, want := range map[string]bool{
		"/livez": true, "/readyz": true, "/healthz": true, "/livez/ping": true, "/readyz/": true,
		"/livezz": false, "/": false, "": false, "/api": false, "/metrics": false, "/api/readyz": false,
	} {
		if got := outage.IsHealthCheck(path); got != want {
			t.Errorf("%q: %v, want %v", path, got, want)
		}
	}
}
