package runas

import (
	"errors"
	"fmt"
	"math"
	"os"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"

	"lanyard.dev/internal/hint"
)

// Isolation starts programs as another user and separates them from what belongs to the caller. The package documentation lists
// what is separated.
type Isolation struct {
	user User
	// allowEscalation lets set-user-ID programs and file capabilities take effect.
	allowEscalation bool
	// keep are the inherited descriptors that the program gets.
	keep []int
	// terminal is the index of the descriptor that becomes the program's controlling terminal, or -1.
	terminal int
	// dir is the caller's working directory, or empty if it was removed.
	dir string
}

// NewIsolation returns an Isolation for programs of user. It marks all descriptors that this process inherited as close-on-exec,
// and returns an error if one of keep is not open. Call it before the process opens descriptors that are not close-on-exec.
func NewIsolation(user User, keep []int, allowEscalation bool) (*Isolation, error) {
	for _, descriptor := range keep {
		// Descriptors that this process opened itself are close-on-exec.
		flags, err := unix.FcntlInt(uintptr(descriptor), unix.F_GETFD, 0)
		if err != nil || flags&unix.FD_CLOEXEC != 0 {
			return nil, hint.New(fmt.Errorf("descriptor %d to keep is not open", descriptor), fmt.Sprintf("open it for lanyard exec, as in %d<FILE", descriptor))
		}
	}
	if err := closeInheritedOnExec(); err != nil {
		return nil, fmt.Errorf("close the inherited descriptors: %w", err)
	}
	dir, err := os.Getwd()
	if err != nil {
		dir = ""
	}
	return &Isolation{user: user, allowEscalation: allowEscalation, keep: keep, terminal: unset, dir: dir}, nil
}

func closeInheritedOnExec() error {
	err := unix.CloseRange(firstInherited, math.MaxUint32, unix.CLOSE_RANGE_CLOEXEC)
	if !errors.Is(err, unix.ENOSYS) && !errors.Is(err, unix.EINVAL) {
		return err
	}
	// Kernels before 5.11 cannot mark a range of descriptors.
	entries, err := os.ReadDir("/proc/self/fd")
	for _, entry := range entries {
		if descriptor, notNumber := strconv.Atoi(entry.Name()); notNumber == nil && descriptor >= firstInherited {
			unix.CloseOnExec(descriptor)
		}
	}
	return err
}

// User returns the user as whom programs run.
func (i *Isolation) User() User { return i.user }

// SetTerminal makes a descriptor the controlling terminal of the programs that start from now on. The index counts the files
// that the program gets; -1 means no terminal.
func (i *Isolation) SetTerminal(index int) { i.terminal = index }

// WithoutTerminal returns an Isolation for further programs of the same user. They get no terminal and no descriptor to keep.
func (i *Isolation) WithoutTerminal() *Isolation {
	other := *i
	other.terminal, other.keep = unset, nil
	return &other
}

// Start prepares the calling thread, completes attributes, and calls start, which starts the program with these attributes. The
// goroutine must be locked to the thread, and the thread must end with it: it cannot be used for anything else any more.
func (i *Isolation) Start(attributes *syscall.SysProcAttr, start func() error) error {
	if err := i.prepareThread(); err != nil {
		return err
	}
	i.setAttributes(attributes)
	return i.withKeptDescriptors(start)
}

func (i *Isolation) prepareThread() error {
	for _, step := range []struct {
		name string
		do   func() error
	}{
		{"separate the working directory", func() error { return unix.Unshare(unix.CLONE_FS) }},
		{"clear the security bits", clearSecurityBits},
		{"drop the inheritable capabilities", dropInheritableCapabilities},
		{"leave the session keyring", i.joinNewKeyring},
		{"forbid new privileges", i.forbidEscalation},
		{"enter a directory", i.enterDirectory},
	} {
		if err := step.do(); err != nil {
			return fmt.Errorf("%s: %w", step.name, err)
		}
	}
	const othersMustNotWrite = 0o022
	unix.Umask(unix.Umask(othersMustNotWrite) | othersMustNotWrite)
	return nil
}

// setAttributes makes the program run as the user in a session of its own. Processes of one session may send each other
// SIGCONT, and may put input into the session's terminal.
func (i *Isolation) setAttributes(attributes *syscall.SysProcAttr) {
	attributes.Credential = i.user.credential()
	attributes.Setpgid, attributes.Setsid = false, true
	if i.terminal != unset {
		attributes.Setctty, attributes.Ctty = true, i.terminal
	}
}

func (u User) credential() *syscall.Credential {
	groups := make([]uint32, 0, len(u.Groups))
	for _, group := range u.Groups {
		groups = append(groups, uint32(group))
	}
	return &syscall.Credential{Uid: uint32(u.UID), Gid: uint32(u.GID), Groups: groups}
}

// withKeptDescriptors calls f while a program that is executed inherits the descriptors to keep.
func (i *Isolation) withKeptDescriptors(f func() error) error {
	setFlags := func(flags int) (err error) {
		for _, descriptor := range i.keep {
			_, one := unix.FcntlInt(uintptr(descriptor), unix.F_SETFD, flags)
			err = errors.Join(err, one)
		}
		return err
	}
	if err := setFlags(0); err != nil {
		return fmt.Errorf("keep a descriptor: %w", err)
	}
	return errors.Join(f(), setFlags(unix.FD_CLOEXEC))
}

// clearSecurityBits clears the bits with which capabilities would survive the change of user.
func clearSecurityBits() error {
	bits, err := unix.PrctlRetInt(unix.PR_GET_SECUREBITS, 0, 0, 0, 0)
	if err != nil || bits == 0 {
		return err
	}
	return unix.Prctl(unix.PR_SET_SECUREBITS, 0, 0, 0, 0)
}

// dropInheritableCapabilities empties the inheritable and ambient capabilities of the calling thread. They would survive the
// change of user; the other sets do not.
func dropInheritableCapabilities() error {
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

// joinNewKeyring replaces the session keyring by an empty one that belongs to the user. Every process with a session keyring
// can read the keys in it.
func (i *Isolation) joinNewKeyring() error {
	keyring, err := unix.KeyctlInt(unix.KEYCTL_JOIN_SESSION_KEYRING, 0, 0, 0, 0)
	if errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EPERM) {
		return nil // The kernel has no keyrings, or a filter forbids the call, which then holds for the program too.
	}
	if err != nil {
		return err
	}
	_, err = unix.KeyctlInt(unix.KEYCTL_CHOWN, keyring, i.user.UID, i.user.GID, 0)
	return err
}

func (i *Isolation) forbidEscalation() error {
	if i.allowEscalation {
		return nil
	}
	return unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
}

// enterDirectory changes to the caller's working directory if the user can reach it by its path, else to the user's home
// directory, else to /. A working directory gives access to what is below it, even if the user may not search its parents. The
// thread takes the user's identity for the checks, and then its own again.
func (i *Isolation) enterDirectory() (err error) {
	groups, err := unix.Getgroups()
	if err != nil {
		return err
	}
	uid, gid := os.Geteuid(), os.Getegid()
	defer func() {
		err = errors.Join(err, unix.Setfsuid(uid), unix.Setfsgid(gid), unix.Setgroups(groups))
	}()
	if err := unix.Setgroups(i.user.Groups); err != nil {
		return err
	}
	if err := errors.Join(unix.Setfsgid(i.user.GID), unix.Setfsuid(i.user.UID)); err != nil {
		return err
	}
	// setfsuid does not report a failure. The next call returns the UID that is in effect.
	const query = -1
	if now, _ := unix.SetfsuidRetUid(query); now != i.user.UID {
		return unix.EPERM
	}
	for _, dir := range []string{i.dir, i.user.Home, "/"} {
		if dir == "" {
			continue
		}
		if err = unix.Chdir(dir); err == nil {
			return nil
		}
	}
	return err
}
