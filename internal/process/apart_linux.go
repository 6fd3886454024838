package process

import (
	"errors"
	"fmt"
	"math"
	"os"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// apart is how the command of another user is kept from what is the caller's: their terminal and session, descriptors,
// capabilities, keys, the way to their directories, and set-user-ID programs. What the caller may choose for any command
// crosses: standard input, output and error, resource limits, scheduling, the control group, ignored signals.
type apart struct {
	user User
	// escalate lets set-user-ID programs and file capabilities take effect.
	escalate bool
	// keep are the inherited descriptors that the command is to have.
	keep []int
	// terminal is the index of the descriptor that becomes the controlling terminal, or -1.
	terminal int
	// dir is where the caller is.
	dir string
}

// firstInherited is the first descriptor that is not standard input, output or error.
const firstInherited = 3

// newApart closes the descriptors that this process inherited to every program it starts, but for those of keep. It must
// be called before the process opens any descriptor that it does not close itself.
func newApart(user User, keep []int, escalate bool) (*apart, error) {
	for _, descriptor := range keep {
		// What this process opened itself is closed on execution.
		flags, err := unix.FcntlInt(uintptr(descriptor), unix.F_GETFD, 0)
		if err != nil || flags&unix.FD_CLOEXEC != 0 {
			return nil, &Error{Err: fmt.Errorf("descriptor %d to keep is not open", descriptor), Next: fmt.Sprintf("open it for lanyard exec, as in %d<FILE", descriptor)}
		}
	}
	if err := closeOnExec(); err != nil {
		return nil, fmt.Errorf("close the inherited descriptors: %w", err)
	}
	dir, err := os.Getwd()
	if err != nil {
		dir = "" // it was removed
	}
	return &apart{user: user, escalate: escalate, keep: keep, terminal: unset, dir: dir}, nil
}

func closeOnExec() error {
	err := unix.CloseRange(firstInherited, math.MaxUint32, unix.CLOSE_RANGE_CLOEXEC)
	if !errors.Is(err, unix.ENOSYS) && !errors.Is(err, unix.EINVAL) {
		return err
	}
	// Kernels before 5.11 cannot mark a range.
	entries, err := os.ReadDir("/proc/self/fd")
	for _, entry := range entries {
		if descriptor, notNumber := strconv.Atoi(entry.Name()); notNumber == nil && descriptor >= firstInherited {
			unix.CloseOnExec(descriptor)
		}
	}
	return err
}

// cross prepares the calling thread, which must be locked to its goroutine and end with it, to start a program of the user.
func (a *apart) cross() error {
	for _, step := range []struct {
		name string
		do   func() error
	}{
		{"separate the working directory", func() error { return unix.Unshare(unix.CLONE_FS) }},
		{"clear the security bits", clearSecurityBits},
		{"drop the inheritable capabilities", dropInheritable},
		{"leave the session keyring", a.newKeyring},
		{"forbid new privileges", a.forbidEscalation},
		{"enter a directory", a.enterDirectory},
	} {
		if err := step.do(); err != nil {
			return fmt.Errorf("%s: %w", step.name, err)
		}
	}
	const othersMustNotWrite = 0o022
	unix.Umask(unix.Umask(othersMustNotWrite) | othersMustNotWrite)
	return nil
}

// attributes makes the program the user's, in a session of its own: within one session, every process may signal every
// other to continue, and type into the terminal.
func (a *apart) attributes(attributes *syscall.SysProcAttr) {
	attributes.Credential = a.user.credential()
	attributes.Setpgid, attributes.Setsid = false, true
	if a.terminal != unset {
		attributes.Setctty, attributes.Ctty = true, a.terminal
	}
}

// share lets a program that is executed while f runs have the descriptors to keep.
func (a *apart) share(f func() error) error {
	set := func(flags int) (err error) {
		for _, descriptor := range a.keep {
			_, one := unix.FcntlInt(uintptr(descriptor), unix.F_SETFD, flags)
			err = errors.Join(err, one)
		}
		return err
	}
	if err := set(0); err != nil {
		return fmt.Errorf("keep a descriptor: %w", err)
	}
	return errors.Join(f(), set(unix.FD_CLOEXEC))
}

// clearSecurityBits undoes what would let capabilities outlive a change of user.
func clearSecurityBits() error {
	bits, err := unix.PrctlRetInt(unix.PR_GET_SECUREBITS, 0, 0, 0, 0)
	if err != nil || bits == 0 {
		return err
	}
	return unix.Prctl(unix.PR_SET_SECUREBITS, 0, 0, 0, 0)
}

// dropInheritable empties the calling thread's inheritable and ambient capabilities: they outlive a change of user, all
// others do not.
func dropInheritable() error {
	if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0); err != nil {
		return err
	}
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return err
	}
	data[0].Inheritable, data[1].Inheritable = 0, 0
	return unix.Capset(&header, &data[0])
}

// newKeyring replaces the session keyring, whose keys every process that has it may read, by an empty one of the user's.
func (a *apart) newKeyring() error {
	keyring, err := unix.KeyctlInt(unix.KEYCTL_JOIN_SESSION_KEYRING, 0, 0, 0, 0)
	if errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EPERM) {
		return nil // without keyrings, or where a filter forbids the call to the command too
	}
	if err != nil {
		return err
	}
	_, err = unix.KeyctlInt(unix.KEYCTL_CHOWN, keyring, a.user.UID, a.user.GID, 0)
	return err
}

func (a *apart) forbidEscalation() error {
	if a.escalate {
		return nil
	}
	return unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
}

// enterDirectory lets the program begin where the caller is, if the user can get there by the path: a directory that was
// entered gives access to what is below it, whatever is above it forbids. Else it begins in the user's home, or in /.
func (a *apart) enterDirectory() (err error) {
	groups, err := unix.Getgroups()
	if err != nil {
		return err
	}
	uid, gid := os.Geteuid(), os.Getegid()
	defer func() {
		err = errors.Join(err, unix.Setfsuid(uid), unix.Setfsgid(gid), unix.Setgroups(groups))
	}()
	if err := unix.Setgroups(a.user.Groups); err != nil {
		return err
	}
	if err := errors.Join(unix.Setfsgid(a.user.GID), unix.Setfsuid(a.user.UID)); err != nil {
		return err
	}
	// setfsuid reports no failure but by what it returns the next time.
	const query = -1
	if now, _ := unix.SetfsuidRetUid(query); now != a.user.UID {
		return unix.EPERM
	}
	for _, dir := range []string{a.dir, a.user.Home, "/"} {
		if dir == "" {
			continue
		}
		if err = unix.Chdir(dir); err == nil {
			return nil
		}
	}
	return err
}
