package process

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"

	"lanyard.dev/internal/hint"
	"lanyard.dev/internal/runas"
)

// program is what is executed.
type program struct {
	Path string
	Args []string
	Env  []string
}

// findProgram finds a command as a shell does. It runs before everything else, so that a misspelled command creates no Pod.
func findProgram(name string) (string, error) {
	path, err := exec.LookPath(name)
	if err == nil {
		return path, nil
	}
	if failed := (*exec.Error)(nil); errors.As(err, &failed) {
		err = failed.Err
	}
	return "", executionFailure(name, err)
}

// executionFailure returns the error of a program that cannot be executed, with the exit code that shells use.
func executionFailure(name string, err error) error {
	if failed := (*fs.PathError)(nil); errors.As(err, &failed) {
		err = failed.Err
	}
	code := ExitNotExecutable
	if errors.Is(err, exec.ErrNotFound) || errors.Is(err, fs.ErrNotExist) {
		code = ExitNotFound
	}
	return &Error{Code: code, Err: fmt.Errorf("run %s: %w", name, err)}
}

// launcher starts a command in two steps, so that the volume can be filled in between. Its methods must not be called
// concurrently.
type launcher interface {
	// prepare returns the volume that the command will see, or nil if nothing is mounted.
	prepare() (*volume, error)
	start(program) (*os.Process, error)
	// release frees resources, and ends a process that was prepared but not started. It does not end the command.
	release()
}

const onlyRootHint = "only root may run commands as another user"

// direct starts the command itself, from a thread of its own.
type direct struct {
	mount     bool
	files     []*os.File
	ownGroup  bool             // whether the command gets a process group of its own
	isolation *runas.Isolation // for a command of another user
	thread    *thread
}

func (d *direct) prepare() (v *volume, err error) {
	d.thread = newThread()
	if !d.mount {
		return nil, nil
	}
	d.thread.do(func() {
		if err = unix.Unshare(unix.CLONE_NEWNS); err != nil {
			err = namespaceRefused(err)
			return
		}
		v, err = mountVolume(WellKnown)
	})
	return v, err
}

func (d *direct) start(p program) (process *os.Process, err error) {
	attributes := &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: d.ownGroup}
	execute := func() (err error) {
		process, err = os.StartProcess(p.Path, p.Args, &os.ProcAttr{Env: p.Env, Files: d.files, Sys: attributes})
		return err
	}
	if d.isolation == nil {
		if d.thread.do(func() { err = execute() }); err != nil {
			return nil, executionFailure(p.Path, err)
		}
		return process, nil
	}
	d.thread.do(func() { err = d.isolation.Start(attributes, execute) })
	uid := d.isolation.User().UID
	failed := (*fs.PathError)(nil)
	switch {
	case err == nil:
		return process, nil
	case errors.Is(err, fs.ErrPermission) && os.Geteuid() != 0:
		return nil, hint.New(fmt.Errorf("become user %d: %w", uid, err), onlyRootHint)
	case errors.As(err, &failed):
		return nil, executionFailure(p.Path, err)
	}
	return nil, fmt.Errorf("prepare to run as user %d: %w", uid, err)
}

func (d *direct) release() {
	if d.thread != nil {
		d.thread.end()
	}
}

// mayMount reports whether this process may enter a mount namespace without a user namespace.
func mayMount() bool { return hasCapability(unix.CAP_SYS_ADMIN) }

// hasCapability reports whether this process has a capability, which must be one of the first 32.
func hasCapability(capability int) bool {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return false
	}
	return data[0].Effective&(1<<capability) != 0
}

// thread is an operating system thread that runs functions until end. It has two uses: a single thread can enter a mount
// namespace, and a process with a parent-death signal gets that signal when the thread that started it ends.
type thread struct {
	work  chan func()
	ended chan struct{}
}

func newThread() *thread {
	t := &thread{work: make(chan func()), ended: make(chan struct{})}
	go func() {
		defer close(t.ended)
		// Without UnlockOSThread, the runtime ends the thread with the goroutine instead of reusing it.
		runtime.LockOSThread()
		for f := range t.work {
			f()
		}
	}()
	return t
}

// do runs f on the thread and returns when f has returned. It passes a panic of f on to the caller.
func (t *thread) do(f func()) {
	var panicked any
	done := make(chan struct{})
	t.work <- func() {
		defer close(done)
		defer func() { panicked = recover() }()
		f()
	}
	<-done
	if panicked != nil {
		panic(panicked)
	}
}

func (t *thread) end() {
	close(t.work)
	<-t.ended
}
