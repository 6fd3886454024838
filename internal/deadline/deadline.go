// Package deadline limits steps that may never return, such as a write to a disk that hangs, or the end of a library.
//
// A step that exceeds its limit is left behind, not stopped: its goroutine continues. So the package is for the end of a process,
// which would otherwise never end.
package deadline

import (
	"errors"
	"fmt"
	"time"
)

// ErrExceeded reports a step that did not return within its limit.
var ErrExceeded = errors.New("not done in time")

// Run returns the error of step. If step does not return within limit, Run returns ErrExceeded, with what as the description of
// the step, such as "close the audit log".
func Run(limit time.Duration, what string, step func() error) error {
	done := make(chan error, 1)
	go func() { done <- step() }()
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case err := <-done:
		return err
	case <-timer.C:
		return fmt.Errorf("%s: %w (%v)", what, ErrExceeded, limit)
	}
}
