package etcd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"lanyard.dev/internal/hint"
)

// memberError names the directory of a member that does not start or had to give up, and adds a hint.
func memberError(dir string, err error) error {
	return hint.New(fmt.Errorf("etcd in %s: %w", dir, err), hintFor(dir, err))
}

func hintFor(dir string, err error) string {
	switch {
	case errors.Is(err, ErrLocked):
		return "stop the process that uses this directory, or choose another one"
	case isAny(err, syscall.ENOSPC, syscall.EDQUOT, syscall.EFBIG):
		return "free some space on that disk, or raise the quota, and start again; no acknowledged write is lost"
	case isAny(err, syscall.EMFILE, syscall.ENFILE):
		return "allow more open files, for example with ulimit -n 1024, and start again; the data is not damaged"
	case isAny(err, syscall.ENOMEM):
		return "allow more memory, for example with ulimit -v unlimited, and start again; the data is not damaged"
	case isAny(err, fs.ErrPermission, syscall.EROFS):
		return "check that " + dir + " is readable and writable by this user"
	case isAny(err, context.Canceled, context.DeadlineExceeded):
		return "start again"
	case strings.HasPrefix(err.Error(), "version ") && strings.HasSuffix(err.Error(), " is not supported"):
		return "a later version wrote this data: use that version, or restore a backup of this one"
	case errors.Is(err, errRemoved):
		return "what was written since is lost: restore " + dir + " from a backup"
	case errors.Is(err, errDamaged):
		return "restore " + dir + " from a backup, or start empty in another data directory"
	}
	return "see what etcd logged before; restore " + dir + " from a backup only if its files are damaged"
}

// isAny also looks for the system's words: the database wraps no errors.
func isAny(err error, targets ...error) bool {
	return slices.ContainsFunc(targets, func(target error) bool {
		errno, fromSystem := target.(syscall.Errno)
		return errors.Is(err, target) || fromSystem && strings.Contains(err.Error(), errno.Error())
	})
}

// ErrLocked reports that another process runs a member on the same directory.
var ErrLocked = errors.New("another process uses this directory")

var (
	// errGaveUp marks what etcd itself considers the end: damage, but also a
	// lack of descriptors, memory or space.
	errGaveUp = errors.New("cannot go on")
	// errDamaged marks files that were found to be damaged.
	errDamaged = errors.New("data is damaged")
	// errRemoved marks files that were taken away from a member that runs.
	errRemoved = errors.New("the data was removed or replaced while it was in use")
)

// failureLog turns etcd's fatal and panic log lines into errors. Left alone,
// etcd would end the process from within, with a stack trace for a message.
type failureLog struct {
	once   sync.Once
	failed chan error

	// gaveUp is set once a goroutine of the member is held.
	gaveUp atomic.Bool

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
	f.once.Do(func() {
		f.gaveUp.Store(true)
		f.failed <- failure(message, fields)
	})
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
