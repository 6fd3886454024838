package auditlog

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"gopkg.in/natefinch/lumberjack.v2"
	"k8s.io/klog/v2"
)

// open returns the writer of events. It creates the file with mode 0600, and its directory, if they do not exist.
func open(o Options) (io.WriteCloser, error) {
	if o.LogPath == "-" {
		return nopCloser{os.Stdout}, nil
	}
	if err := os.MkdirAll(filepath.Dir(o.LogPath), 0o700); err != nil {
		return nil, err
	}
	// The rotating writer opens the file at the first event. An error must be reported at the start.
	f, err := os.OpenFile(o.LogPath, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	if err := f.Close(); err != nil {
		return nil, err
	}
	return &lumberjack.Logger{Filename: o.LogPath, MaxAge: o.MaxAge, MaxBackups: o.MaxBackups, MaxSize: o.MaxSize}, nil
}

type nopCloser struct{ io.Writer }

func (nopCloser) Close() error { return nil }

// file is a rotating file that stays closed after Close, and that knows whether it can be written. Without this, the rotating
// writer would open the file again for the event of a request that outlasts the shutdown. By then the directory may belong to
// another authority, or be gone.
type file struct {
	mu     sync.Mutex
	out    io.WriteCloser
	closed bool

	health health
}

// Write implements io.Writer. It fails with fs.ErrClosed after Close.
func (f *file) Write(p []byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.write(p)
}

// write appends p. mu must be held.
func (f *file) write(p []byte) (int, error) {
	if f.closed {
		return 0, fs.ErrClosed
	}
	line := p
	if f.health.failing() {
		// The write that failed may have left a part of an event. This event must begin on a line of its own.
		line = append([]byte{'\n'}, p...)
	}
	f.health.begin()
	_, err := f.out.Write(line)
	f.health.end(err)
	if err != nil {
		return 0, err
	}
	return len(p), nil
}

// probe tries to write a file that could not be written. It writes a blank line that does not fit into the rest of the file's
// last block. A shorter line might fit there although the disk has no room for an event.
func (f *file) probe() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.health.failing() {
		_, _ = f.write(blankLine)
	}
}

// Close implements io.Closer.
func (f *file) Close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.closed = true
	return f.out.Close()
}

// writeTimeout is how long a write may take until the log is unhealthy.
const writeTimeout = 10 * time.Second

// blankLine is as long as a block of common file systems. Readers of JSON lines skip it.
var blankLine = append(bytes.Repeat([]byte{' '}, 4096), '\n')

// health is the result of the latest write. Its methods never block, so that a disk that hangs can be reported.
type health struct {
	failed  atomic.Pointer[error]
	writing atomic.Pointer[time.Time] // when the write that is under way began
	lost    atomic.Int64              // writes that have failed since the last one that succeeded
	probing atomic.Bool
}

func (h *health) begin() {
	now := time.Now()
	h.writing.Store(&now)
}

// end records the result of a write. It logs when writing begins to fail, and when it succeeds again.
func (h *health) end(err error) {
	h.writing.Store(nil)
	if err != nil {
		if h.failed.Swap(&err) == nil {
			klog.ErrorS(err, "The audit log cannot be written")
		}
		h.lost.Add(1)
		return
	}
	if h.failed.Swap(nil) != nil {
		klog.ErrorS(nil, "The audit log is written again", "failedWrites", h.lost.Swap(0))
	}
}

func (h *health) failing() bool { return h.failed.Load() != nil }

// err returns why the log is unhealthy, or nil.
func (h *health) err() error {
	if since := h.writing.Load(); since != nil {
		if taken := time.Since(*since); taken > writeTimeout {
			return fmt.Errorf("a write has taken %v", taken.Round(time.Second))
		}
	}
	if err := h.failed.Load(); err != nil {
		return *err
	}
	return nil
}

// Healthy returns an error while events cannot be written: the latest write failed, or has been under way for writeTimeout. It
// does not block. After a failure, each call starts another attempt to write, so that a log with few events recovers too.
func (l *Log) Healthy() error {
	err := l.file.health.err()
	if err == nil {
		return nil
	}
	if l.file.health.probing.CompareAndSwap(false, true) {
		go func() {
			defer l.file.health.probing.Store(false)
			l.file.probe()
		}()
	}
	return errors.New("the audit log cannot be written: requests may go unrecorded")
}
