package datadir

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
)

// Error is a directory or file that cannot be used.
type Error struct {
	Path    string
	Problem string
	// Next says what the reader can do about it.
	Next string
	// Err is the cause, or nil; its text is part of Error's.
	Err error
}

func (e *Error) Error() string {
	if errors.Is(e.Err, ErrInUse) {
		return fmt.Sprintf("%s %s %v", e.Path, e.Problem, e.Err)
	}
	if e.Err != nil {
		return fmt.Sprintf("%s %s: %v", e.Path, e.Problem, e.Err)
	}
	return fmt.Sprintf("%s %s", e.Path, e.Problem)
}

func (e *Error) Unwrap() error { return e.Err }

// Hint says what the reader can do about it.
func (e *Error) Hint() string { return e.Next }

// cause drops the operation and path that os adds; Error names the path.
func cause(err error) error {
	if pathError := (*fs.PathError)(nil); errors.As(err, &pathError) {
		return pathError.Err
	}
	if linkError := (*os.LinkError)(nil); errors.As(err, &linkError) {
		return linkError.Err
	}
	return err
}

func unwritable(path string, err error) error {
	return &Error{
		Path: path, Problem: "cannot be written", Err: cause(err),
		Next: "make room or give this user write access, or choose another directory with --data-dir",
	}
}
