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
)

// program is what is executed.
type program struct {
	Path string
	Args []string
	Env  []string
}

// lookUp finds a command as a shell does. It is done before anything else, so that a slip of the pen makes no Pod.
func lookUp(name string) (string, error) {
	path, err := exec.LookPath(name)
	if err == nil {
		return path, nil
	}
	if failed := (*exec.Error)(nil); errors.As(err, &failed) {
		err = failed.Err
	}
	return "", notExecuted(name, err)
}

// notExecuted gives a failed execution the exit code that shells give it.
func notExecuted(name string, err error) error {
	if failed := (*fs.PathError)(nil); errors.As(err, &failed) {
		err = failed.Err
	}
	code := ExitNotExecutable
	if errors.Is(err, exec.ErrNotFound) || errors.Is(err, fs.ErrNotExist) {
		code = ExitNotFound
	}
	return &Error{Code: code, Err: fmt.Errorf("run %s: %w", name, err)}
}

// launcher brings a command to life in two steps, between which the volume can be filled. Its methods are called one after
// the other.
type launcher interface {
	// prepare returns the volume that the command will see, or none where there is none to mount.
	prepare() (*volume, error)
	start(program) (*os.Process, error)
	// end gives back what is held, and ends a command that was prepared and not started.
	end()
}

// direct starts the command itself, from a thread of its own.
type direct struct {
	mount  bool
	files  []*os.File
	own    bool   // a process group of its own
	apart  *apart // for another user's command
	thread *thread
}

func (d *direct) prepare() (v *volume, err error) {
	d.thread = newThread()
	if !d.mount {
		return nil, nil
	}
	d.thread.do(func() {
		if err = unix.Unshare(unix.CLONE_NEWNS); err != nil {
			err = refusal(err)
			return
		}
		v, err = mountVolume(WellKnown)
	})
	return v, err
}

func (d *direct) start(p program) (process *os.Process, err error) {
	attributes := &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: d.own}
	execute := func() (err error) {
		process, err = os.StartProcess(p.Path, p.Args, &os.ProcAttr{Env: p.Env, Files: d.files, Sys: attributes})
		return err
	}
	if d.apart == nil {
		d.thread.do(func() { err = execute() })
	} else {
		d.thread.do(func() {
			if err = d.apart.cross(); err == nil {
				d.apart.attributes(attributes)
				err = d.apart.share(execute)
			}
		})
	}
	failed := (*fs.PathError)(nil)
	switch {
	case err == nil:
		return process, nil
	case errors.Is(err, fs.ErrPermission) && d.apart != nil && os.Geteuid() != 0:
		return nil, &Error{Err: fmt.Errorf("become user %d: %w", d.apart.user.UID, err), Next: "only root may run commands as another user"}
	case d.apart == nil, errors.As(err, &failed):
		return nil, notExecuted(p.Path, err)
	}
	return nil, fmt.Errorf("prepare to run as user %d: %w", d.apart.user.UID, err)
}

func (d *direct) end() {
	if d.thread != nil {
		d.thread.end()
	}
}

func (u User) credential() *syscall.Credential {
	groups := make([]uint32, 0, len(u.Groups))
	for _, group := range u.Groups {
		groups = append(groups, uint32(group))
	}
	return &syscall.Credential{Uid: uint32(u.UID), Gid: uint32(u.GID), Groups: groups}
}

// mayMount tells whether this process may enter a mount namespace without a user namespace.
func mayMount() bool { return holds(unix.CAP_SYS_ADMIN) }

// holds reports whether this process has a capability of the first 32.
func holds(capability int) bool {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return false
	}
	return data[0].Effective&(1<<capability) != 0
}

// thread is one of the system's threads, which does what it is given until it ends. A namespace can be a thread's alone,
// and a process that is to die with its parent dies with the thread that started it.
type thread struct {
	work  chan func()
	ended chan struct{}
}

func newThread() *thread {
	t := &thread{work: make(chan func()), ended: make(chan struct{})}
	go func() {
		defer close(t.ended)
		// It is never unlocked, so that the runtime ends the thread instead of using it for something else.
		runtime.LockOSThread()
		for f := range t.work {
			f()
		}
	}()
	return t
}

// do runs f on the thread and returns when it has returned. A panic is the caller's.
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
