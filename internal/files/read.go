// Package files reads, writes and locks files: reads have a size limit, a write is whole or absent even after a crash, a
// lock ends with the process that holds it, and a file with a secret is checked for other users who could read or
// replace it.
//
// The package does not know what the files contain.
package files

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"lanyard.dev/internal/hint"
)

// Limits for Read, in bytes.
const (
	// MaxText is the limit for a file of a few lines, such as a file of /proc or /etc.
	MaxText = 64 << 10
	// MaxPEM is the limit for a file of keys or certificates. An operating system's bundle of root certificates has a
	// quarter of that.
	MaxPEM = 1 << 20
	// MaxConfig is the limit for a configuration file or kubeconfig: 64 issuers with a CA bundle each fit.
	MaxConfig = 4 << 20
)

// ErrTooLarge is wrapped by the errors of Read and ReadAll about a file that is larger than the limit.
var ErrTooLarge = errors.New("file is too large")

// tooLarge names the file and its limit.
type tooLarge struct {
	name  string
	limit int64
}

func (e *tooLarge) Error() string {
	if e.limit%1024 != 0 {
		return fmt.Sprintf("%s is larger than %d bytes", e.name, e.limit)
	}
	return fmt.Sprintf("%s is larger than %d KiB", e.name, e.limit/1024)
}

func (e *tooLarge) Unwrap() error { return ErrTooLarge }

// Read returns the content of a file of at most limit bytes. Every error names the file. The limit also applies to pipes, devices
// and /proc, whose size is unknown before they are read. Opening a named pipe waits for its writer.
func Read(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return ReadAll(f, path, limit)
}

// ReadAll returns the content of r, which may have at most limit bytes. Errors contain name.
func ReadAll(r io.Reader, name string, limit int64) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(r, limit+1))
	if int64(len(data)) > limit {
		return nil, &tooLarge{name, limit}
	}
	if pathError := (*fs.PathError)(nil); err != nil && !errors.As(err, &pathError) {
		err = fmt.Errorf("read %s: %w", name, err)
	}
	if err != nil {
		return nil, err
	}
	return data, nil
}

// Unusable returns a *hint.Error about a file or directory that cannot be used, with the text "PATH PROBLEM: CAUSE". cause
// may be nil. next is the hint.
func Unusable(path, problem string, cause error, next string) error {
	if cause == nil {
		return hint.New(fmt.Errorf("%s %s", path, problem), next)
	}
	return hint.New(fmt.Errorf("%s %s: %w", path, problem, withoutPath(cause)), next)
}

// withoutPath drops the operation and path that package os adds to an error.
func withoutPath(err error) error {
	if pathError := (*fs.PathError)(nil); errors.As(err, &pathError) {
		return pathError.Err
	}
	if linkError := (*os.LinkError)(nil); errors.As(err, &linkError) {
		return linkError.Err
	}
	return err
}
