package deadline

import (
	"errors"
	"io/fs"
	"strings"
	"testing"
	"time"
)

func TestStepInTime(t *testing.T) {
	t.Parallel()
	if err := Run(time.Minute, "close", func() error { return fs.ErrClosed }); !errors.Is(err, fs.ErrClosed) {
		t.Errorf("got %v, want the step's error", err)
	}
}

func TestStepThatNeverReturns(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	defer close(release)
	err := Run(time.Millisecond, "close the audit log", func() error { <-release; return nil })
	if !errors.Is(err, ErrExceeded) || !strings.HasPrefix(err.Error(), "close the audit log: ") {
		t.Errorf("got %v", err)
	}
}
