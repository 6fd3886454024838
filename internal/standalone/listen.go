package standalone

import (
	"errors"
	"fmt"
	"net"
	"strconv"
	"syscall"

	"lanyard.dev/internal/datadir"
	"lanyard.dev/internal/hint"
)

// Listen takes the address to serve on; port 0 takes a free one.
func Listen(address string, port int) (net.Listener, error) {
	target := net.JoinHostPort(address, strconv.Itoa(port))
	l, err := net.Listen("tcp", target)
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, taken(target, holder(port), err)
	case err != nil:
		return nil, fmt.Errorf("listen on %s: %w", target, err)
	}
	return l, nil
}

// taken returns the error of an address that another process serves on. holder describes that process, or is "".
func taken(address, holder string, err error) error {
	if holder == "" {
		holder = "another process"
	}
	return hint.New(&portError{address, holder, err}, "choose another port with --secure-port, or end that process first")
}

// portError leaves the words of its cause out of its text.
type portError struct {
	address, holder string
	cause           error
}

func (e *portError) Error() string { return fmt.Sprintf("%s is taken by %s", e.address, e.holder) }
func (e *portError) Unwrap() error { return e.cause }

// holder describes who listens on a port of this machine, or returns "".
func holder(port int) string {
	running, err := datadir.FindRunning()
	if err != nil {
		running = nil
	}
	for _, r := range running {
		if _, p, err := net.SplitHostPort(hostOf(r.URL)); err == nil && p == strconv.Itoa(port) {
			return fmt.Sprintf("lanyard up (process %d, data directory %s)", r.PID, r.DataDir)
		}
	}
	return listenerOf(port)
}
