package standalone

import (
	"errors"
	"fmt"
	"net"
	"strconv"
	"syscall"

	"lanyard.dev/internal/datadir"
)

// PortError says that the port is taken, and by whom if that is known.
type PortError struct {
	Address, Holder string
	Err             error
}

// Error implements error.
func (e *PortError) Error() string {
	if e.Holder == "" {
		return fmt.Sprintf("%s is taken by another process", e.Address)
	}
	return fmt.Sprintf("%s is taken by %s", e.Address, e.Holder)
}

// Unwrap returns the cause.
func (e *PortError) Unwrap() error { return e.Err }

// Hint says what to do next.
func (e *PortError) Hint() string {
	return "choose another port with --secure-port, or end that process first"
}

// Listen takes the address to serve on; port 0 takes a free one.
func Listen(address string, port int) (net.Listener, error) {
	target := net.JoinHostPort(address, strconv.Itoa(port))
	l, err := net.Listen("tcp", target)
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, &PortError{Address: target, Holder: holder(port), Err: err}
	case err != nil:
		return nil, fmt.Errorf("listen on %s: %w", target, err)
	}
	return l, nil
}

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
