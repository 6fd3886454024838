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

// Options say what of a log is read, and where it goes.
type Options struct {
	// TailLines is how many lines before the end are begun with; nil is all.
	TailLines *int64
	// LimitBytes bounds what is written; nil does not.
	LimitBytes *int64
	// Since leaves out what is older.
	Since      time.Time
	Timestamps bool
	// Stdout and Stderr get what the container wrote there. A nil one leaves that out.
	Stdout, Stderr io.Writer

	// Running, where not nil, has the log followed while it returns true. Then it is read to its end.
	Running func(ctx context.Context) (bool, error)
}

const (
	block = 32 << 10
	// followPause is how late a follower learns of what is written, and runningPause how late of the container's end.
	followPause  = 100 * time.Millisecond
	runningPause = time.Second
)

// Read writes the log of this name below dir. An error that is fs.ErrNotExist says that there is none. It ends when ctx does.
func Read(ctx context.Context, dir *os.Root, name string, o Options) error {
	f, err := open(dir, name)
	if err != nil {
		return err
	}
	r := &reader{dir: dir, name: name, file: f, lines: newLines(o), data: make([]byte, block)}
	defer func() { _ = r.file.Close() }()
	nothing := func(n *int64) bool { return n != nil && *n <= 0 }
	if nothing(o.LimitBytes) || nothing(o.TailLines) && o.Running == nil {
		return nil
	}
	err = r.seek(ctx)
	if err == nil {
		err = r.read(ctx)
	}
	if errors.Is(err, errEnough) {
		return nil
	}
	return err
}

// open opens a regular file, and waits for nobody who would write to another kind.
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

// seek goes to where the last lines begin.
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

// tail returns where the last count lines of size bytes begin. What has no end is no line.
func tail(ctx context.Context, f io.ReaderAt, size, count int64) (int64, error) {
	data := make([]byte, block)
	for right := size; right > 0; {
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		left := max(right-block, 0)
		part := data[:right-left]
		if n, err := f.ReadAt(part, left); n < len(part) {
			return 0, err // it was cut short meanwhile
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

// read reads to the end, and with Running on from there.
func (r *reader) read(ctx context.Context) error {
	pause := time.NewTicker(followPause)
	defer pause.Stop()
	var asked time.Time
	for running := r.lines.Running != nil; ; {
		if err := r.toEnd(ctx); err != nil {
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
			continue // what was written before the answer
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-pause.C:
		}
	}
}

// toEnd reads what there is.
func (r *reader) toEnd(ctx context.Context) error {
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

// rotated goes on to the log that was begun under the name, if there is another now. The runtime does not write to the old
// one any more once there is a new one: it is read to its end first.
func (r *reader) rotated(ctx context.Context) (bool, error) {
	now, err := r.dir.Stat(r.name)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil // it is being rotated
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
	err = r.toEnd(ctx)
	r.file = next
	return true, errors.Join(err, r.lines.flush())
}
