package etcd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"sync"
	"sync/atomic"
	"syscall"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// Error is a member that does not start, or that had to give up.
type Error struct {
	Dir string
	Err error
}

func (e *Error) Error() string { return fmt.Sprintf("etcd in %s: %v", e.Dir, e.Err) }
func (e *Error) Unwrap() error { return e.Err }

// Hint says what the reader can do about it.
func (e *Error) Hint() string {
	switch {
	case errors.Is(e.Err, ErrLocked):
		return "stop the process that uses this directory, or choose another one"
	case errors.Is(e.Err, syscall.ENOSPC):
		return "free some space on that disk and start again; no acknowledged write is lost"
	case errors.Is(e.Err, fs.ErrPermission):
		return "check that " + e.Dir + " is readable and writable by this user"
	case errors.Is(e.Err, context.Canceled), errors.Is(e.Err, context.DeadlineExceeded):
		return "start again"
	}
	return "restore " + e.Dir + " from a backup, or move it away to start empty"
}

// ErrLocked reports that another process runs a member on the same directory.
var ErrLocked = errors.New("another process uses this directory")

// errGaveUp marks what etcd itself considers beyond repair.
var errGaveUp = errors.New("data is damaged or cannot be written")

// failureLog turns etcd's fatal and panic log lines into errors. Left alone,
// etcd would end the process from within, with a stack trace for a message.
type failureLog struct {
	once   sync.Once
	failed chan error

	// stopping silences the log: each listener that closes counts as an
	// error to the library.
	stopping atomic.Bool
}

func newFailureLog() *failureLog { return &failureLog{failed: make(chan error, 1)} }

func (f *failureLog) logger(w io.Writer) *zap.Logger {
	var core zapcore.Core = zapcore.NewNopCore()
	if w != nil {
		encoder := zapcore.NewJSONEncoder(zap.NewProductionEncoderConfig())
		core = quietCore{zapcore.NewCore(encoder, zapcore.Lock(zapcore.AddSync(w)), zap.WarnLevel), &f.stopping}
	}
	return zap.New(core, zap.WithFatalHook(f), zap.WithPanicHook(f))
}

// OnWrite is called in the goroutine that cannot go on, and does not return:
// etcd takes for granted that nothing after a fatal line runs, so the
// goroutine is held for the rest of the process's life, its locks included.
func (f *failureLog) OnWrite(entry *zapcore.CheckedEntry, fields []zapcore.Field) {
	f.report(entry.Message, fields)
	select {}
}

// report keeps the first failure only; the later ones follow from it.
func (f *failureLog) report(message string, fields []zapcore.Field) {
	f.once.Do(func() { f.failed <- failure(message, fields) })
}

func failure(message string, fields []zapcore.Field) error {
	for _, field := range fields {
		if cause, ok := field.Interface.(error); ok && field.Type == zapcore.ErrorType {
			return fmt.Errorf("%w: %s: %w", errGaveUp, message, cause)
		}
	}
	return fmt.Errorf("%w: %s", errGaveUp, message)
}

// quietCore drops what does not matter to a lone member on a private socket.
type quietCore struct {
	zapcore.Core
	stopping *atomic.Bool
}

// beside lists the warnings that every uneventful run would give: two are
// advice to networked clusters, two are about the milliseconds before the
// first write of a new directory, which repair themselves.
func beside(message string) bool {
	switch message {
	case "Running http and grpc server on single port. This is not recommended for production.",
		"simple token is not cryptographically signed",
		"Failed to detect schema version",
		"failed to update storage version":
		return true
	}
	return false
}

func (q quietCore) Check(entry zapcore.Entry, checked *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if beside(entry.Message) || q.stopping.Load() {
		return checked
	}
	return q.Core.Check(entry, checked)
}

func (q quietCore) With(fields []zapcore.Field) zapcore.Core {
	return quietCore{q.Core.With(fields), q.stopping}
}
