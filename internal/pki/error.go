package pki

import "fmt"

// FileError is a certificate or key file that cannot be used.
type FileError struct {
	File    string
	Problem string
	// Next says what the reader can do about it.
	Next string
	// Err is the cause, or nil; its text is part of Error's.
	Err error
}

func (e *FileError) Error() string {
	if e.Err != nil {
		return fmt.Sprintf("%s %s: %v", e.File, e.Problem, e.Err)
	}
	return fmt.Sprintf("%s %s", e.File, e.Problem)
}

func (e *FileError) Unwrap() error { return e.Err }

// Hint says what the reader can do about it.
func (e *FileError) Hint() string { return e.Next }
