package node

import (
	"errors"
	"fmt"
)

// Error is why an agent cannot run, with the reader's next step.
type Error struct {
	Err  error
	Next string
}

// Error implements error.
func (e *Error) Error() string { return e.Err.Error() }

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Hint says what the reader can do about it.
func (e *Error) Hint() string { return e.Next }

var errNotRoot = &Error{
	Err:  errors.New("the agent mounts volumes and enters the networks of pods, and this user may not"),
	Next: "run it as root; lanyard exec gives a process its identity without",
}

func inUse(dir string) error {
	return &Error{Err: fmt.Errorf("another agent uses %s", dir), Next: "end that one, or choose another directory with --root-dir"}
}
