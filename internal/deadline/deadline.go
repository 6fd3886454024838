// Package deadline bounds steps that may never return, such as a write to a disk that hangs or a library's shutdown.
//
// A step that exceeds its limit is abandoned, not stopped: its goroutine goes on. The package is therefore for the end of
// a process, where the alternative is a process that never ends.
package deadline

import (
	"errors"
	"fmt"
	"time"
)

// ErrExceeded reports a step that did not return within its limit.
var ErrExceeded = errors.New("not done in time")

// Run returns step's error, or ErrExceeded, with what was to be done, once limit has passed. what completes a sentence
// such as "close the audit log".
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
