// Package hint adds to an error what its reader can do next, such as the command to run. The command line prints that step on a
// line of its own, below the error. The package also measures how similar two words are, for hints that suggest another word.
package hint

import "errors"

// Error is an error and what its reader can do about it.
type Error struct {
	Err error
	// Hint is one line without a period, such as "choose another port with --secure-port". It contains no secret.
	Hint string
}

func (e *Error) Error() string { return e.Err.Error() }

// Unwrap returns Err.
func (e *Error) Unwrap() error { return e.Err }

// New returns err with a hint.
func New(err error, hint string) error { return &Error{Err: err, Hint: hint} }

// Of returns the outermost hint in the chain of err, or "" if there is none.
func Of(err error) string {
	if hinted := (*Error)(nil); errors.As(err, &hinted) {
		return hinted.Hint
	}
	return ""
}
