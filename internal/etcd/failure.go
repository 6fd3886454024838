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

// memberError returns an error with the directory of the member and a hint. The member did not start or had to give up.
func memberError(dir string, err error) error {
	return hint.New(fmt.Errorf("etcd in %s: %w", dir, err), hintFor(dir, err))
}

// hintFor returns what the user can do about the error.
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

// isAny reports whether err is one of the targets. It also compares the text of system errors, because the database does not
// wrap them.
func isAny(err error, targets ...error) bool {
	return slices.ContainsFunc(targets, func(target error) bool {
		errno, fromSystem := target.(syscall.Errno)
		return errors.Is(err, target) || fromSystem && strings.Contains(err.Error(), errno.Error())
	})
}

// ErrLocked reports that another process runs a member on the directory.
var ErrLocked = errors.New("another process uses this directory")

var (
	// errGaveUp marks a failure after which etcd does not continue: damage, or a lack of file descriptors, memory or space.
	errGaveUp = errors.New("cannot go on")
	// errDamaged marks damaged files.
	errDamaged = errors.New("data is damaged")
	// errRemoved marks files that were removed or replaced while the member runs.
	errRemoved = errors.New("the data was removed or replaced while it was in use")
)

// failureLog turns etcd's fatal and panic log lines into errors. Otherwise etcd would end the process with a stack trace.
type failureLog struct {
	once   sync.Once
	failed chan error

	// gaveUp is set when a goroutine of the member is blocked for ever.
	gaveUp atomic.Bool

	// stopping silences the log, because etcd logs the close of each listener as an error.
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

// OnWrite is called in the goroutine that cannot continue, and does not return, because etcd relies on nothing running after
// a fatal log line. The goroutine, and the locks that it has, are blocked for the rest of the process's life.
func (f *failureLog) OnWrite(entry *zapcore.CheckedEntry, fields []zapcore.Field) {
	f.report(entry.Message, fields)
	select {}
}

// report records the first failure. Later ones follow from it.
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

// quietCore drops log lines that do not matter for a member without peers on a private socket.
type quietCore struct {
	zapcore.Core
	stopping *atomic.Bool
}

// isExpectedWarning reports whether a run without problems logs this warning. Two are advice for clusters in a network, and three are
// about the milliseconds before the first write to a new directory. The last of these is logged if the machine is so busy that the
// time for an election has come before the member has added itself to its cluster. It waits for the next election then.
func isExpectedWarning(message string) bool {
	if strings.HasSuffix(message, " cannot campaign at term 1 since there are still pending configuration changes to apply") {
		return true
	}
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
	if isExpectedWarning(entry.Message) || q.stopping.Load() {
		return checked
	}
	return q.Core.Check(entry, checked)
}

func (q quietCore) With(fields []zapcore.Field) zapcore.Core {
	return quietCore{q.Core.With(fields), q.stopping}
}
