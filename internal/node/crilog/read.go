package crilog

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"syscall"
	"time"
)

// Options select what of a log is read, and where it is written.
type Options struct {
	// TailLines is the number of lines before the end with which Read begins. If nil, Read begins with the first line.
	TailLines *int64
	// LimitBytes, where not nil, bounds the number of bytes that are written.
	LimitBytes *int64
	// Since excludes older lines.
	Since      time.Time
	Timestamps bool
	// Stdout and Stderr receive what the container wrote to these streams. If one is nil, that stream is discarded.
	Stdout, Stderr io.Writer

	// Running, where not nil, reports whether the container still runs. Read follows the log while it does, and then reads to
	// the end of the log.
	Running func(ctx context.Context) (bool, error)
}

const (
	blockSize = 32 << 10
	// followPause is the period in which a followed log is read, and runningPause the period in which Running is called.
	followPause  = 100 * time.Millisecond
	runningPause = time.Second
)

// Read writes the log of this name below dir. If there is no such log, the error is fs.ErrNotExist. Read ends when ctx does.
func Read(ctx context.Context, dir *os.Root, name string, o Options) error {
	f, err := open(dir, name)
	if err != nil {
		return err
	}
	r := &reader{dir: dir, name: name, file: f, lines: newLines(o), data: make([]byte, blockSize)}
	defer func() { _ = r.file.Close() }()
	isZero := func(n *int64) bool { return n != nil && *n <= 0 }
	if isZero(o.LimitBytes) || isZero(o.TailLines) && o.Running == nil {
		return nil
	}
	err = r.seek(ctx)
	if err == nil {
		err = r.read(ctx)
	}
	if errors.Is(err, errLimitReached) {
		return nil
	}
	return err
}

// open opens a regular file. It does not block if the file is a named pipe.
func open(dir *os.Root, name string) (*os.File, error) {
	f, err := dir.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s is not a regular file", name)
	}
	if err != nil {
		_ = f.Close()
		return nil, err
	}
	return f, nil
}

// reader reads one log.
type reader struct {
	dir   *os.Root
	name  string
	file  *os.File
	lines *lines
	data  []byte
}

// seek moves to the start of the last TailLines lines.
func (r *reader) seek(ctx context.Context) error {
	if r.lines.TailLines == nil {
		return nil
	}
	info, err := r.file.Stat()
	if err != nil {
		return err
	}
	start, err := tail(ctx, r.file, info.Size(), *r.lines.TailLines)
	if err == nil {
		_, err = r.file.Seek(start, io.SeekStart)
	}
	return err
}

// tail returns the offset at which the last count lines of the first size bytes begin. Text after the last newline is not a line.
func tail(ctx context.Context, f io.ReaderAt, size, count int64) (int64, error) {
	data := make([]byte, blockSize)
	for right := size; right > 0; {
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		left := max(right-blockSize, 0)
		part := data[:right-left]
		if n, err := f.ReadAt(part, left); n < len(part) {
			return 0, err // the file was truncated meanwhile
		}
		for end := bytes.LastIndexByte(part, '\n'); end >= 0; end = bytes.LastIndexByte(part[:end], '\n') {
			if count--; count < 0 {
				return left + int64(end) + 1, nil
			}
		}
		right = left
	}
	return 0, nil
}

// read reads to the end of the log. With Running, it follows the log until the container has ended.
func (r *reader) read(ctx context.Context) error {
	pause := time.NewTicker(followPause)
	defer pause.Stop()
	var asked time.Time
	for running := r.lines.Running != nil; ; {
		if err := r.readToEnd(ctx); err != nil {
			return err
		}
		if !running {
			return r.lines.flush()
		}
		switched, err := r.rotated(ctx)
		if err != nil {
			return err
		}
		if switched {
			continue
		}
		if time.Since(asked) >= runningPause {
			if running, err = r.lines.Running(ctx); err != nil {
				return err
			}
			asked = time.Now()
			continue // read what was written before Running returned
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-pause.C:
		}
	}
}

// readToEnd reads to the current end of the file.
func (r *reader) readToEnd(ctx context.Context) error {
	for ctx.Err() == nil {
		count, err := r.file.Read(r.data)
		if failed := r.lines.add(r.data[:count]); failed != nil {
			return failed
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
	return ctx.Err()
}

// rotated reports whether the log was rotated, and then continues with the new file. It first reads the old file to its end:
// the runtime does not write to it once the new file exists.
func (r *reader) rotated(ctx context.Context) (bool, error) {
	now, err := r.dir.Stat(r.name)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil // the log is being rotated
	}
	if err != nil {
		return false, err
	}
	was, err := r.file.Stat()
	if err != nil || os.SameFile(now, was) {
		return false, err
	}
	next, err := open(r.dir, r.name)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	old := r.file
	defer func() { _ = old.Close() }()
	err = r.readToEnd(ctx)
	r.file = next
	return true, errors.Join(err, r.lines.flush())
}
