package process

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// trampolineArgument is the first argument of a program that is to be Trampoline. Its second is a socket's descriptor.
const trampolineArgument = "exec-trampoline"

// message is what trampoline and supervisor tell each other, one JSON value in each.
type message struct {
	Error string `json:"error,omitempty"`
	Next  string `json:"next,omitempty"`
	Code  int    `json:"code,omitempty"`
	// Errno is the cause of an execution that failed.
	Errno   syscall.Errno `json:"errno,omitempty"`
	Program *program      `json:"program,omitempty"`
}

func (m message) err() error {
	if m.Error == "" {
		return nil
	}
	return &Error{Code: m.Code, Err: errors.New(m.Error), Next: m.Next}
}

// inUserNamespace starts the command by way of this very program, started again in namespaces of its own.
type inUserNamespace struct {
	files   []*os.File
	own     bool
	thread  *thread
	process *os.Process
	socket  *net.UnixConn
	started bool
}

func (n *inUserNamespace) prepare() (*volume, error) {
	n.thread = newThread()
	theirs, err := n.connect()
	if err != nil {
		return nil, err
	}
	err = n.spawn(theirs)
	_ = unix.Close(theirs)
	if err != nil {
		return nil, refusal(err)
	}
	return n.receive()
}

// connect makes a pair of sockets and returns the trampoline's. That keeps its number in the trampoline, since any other
// might be that of a descriptor which is meant for the command.
func (n *inUserNamespace) connect() (theirs int, err error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, fmt.Errorf("make a socket: %w", err)
	}
	ours := os.NewFile(uintptr(pair[0]), "trampoline")
	defer func() { _ = ours.Close() }()
	connection, err := net.FileConn(ours)
	if err != nil {
		_ = unix.Close(pair[1])
		return 0, fmt.Errorf("use a socket: %w", err)
	}
	n.socket = connection.(*net.UnixConn)
	return pair[1], nil
}

func (n *inUserNamespace) spawn(socket int) (err error) {
	uid, gid := os.Geteuid(), os.Getegid()
	attributes := &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: uid, HostID: uid, Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: gid, HostID: gid, Size: 1}},
		// A user who is not root keeps no capability over execve but an ambient one.
		AmbientCaps: []uintptr{unix.CAP_SYS_ADMIN},
		Pdeathsig:   syscall.SIGKILL, Setpgid: n.own,
	}
	argv := []string{os.Args[0], trampolineArgument, strconv.Itoa(socket)}
	n.thread.do(func() {
		if _, err = unix.FcntlInt(uintptr(socket), unix.F_SETFD, 0); err == nil {
			n.process, err = os.StartProcess("/proc/self/exe", argv, &os.ProcAttr{Env: os.Environ(), Files: n.files, Sys: attributes})
		}
	})
	return err
}

// receive takes the volume over.
func (n *inUserNamespace) receive() (*volume, error) {
	text, rights := make([]byte, 4096), make([]byte, unix.CmsgSpace(2*4))
	count, rightsCount, _, _, err := n.socket.ReadMsgUnix(text, rights)
	if err != nil {
		return nil, fmt.Errorf("the process that was to mount ended: %w", err)
	}
	var answer message
	if err := json.Unmarshal(text[:count], &answer); err != nil {
		return nil, fmt.Errorf("the process that was to mount ended: %w", err)
	}
	if err := answer.err(); err != nil {
		return nil, err
	}
	files, err := received(rights[:rightsCount])
	if err != nil || len(files) == 0 {
		return nil, errors.Join(errors.New("the process that mounted handed nothing over"), err)
	}
	v := &volume{dir: files[0]}
	if len(files) > 1 {
		v.point = &mountPoint{held: files[1]}
	}
	return v, nil
}

func received(rights []byte) (files []*os.File, err error) {
	messages, err := unix.ParseSocketControlMessage(rights)
	if err != nil {
		return nil, err
	}
	for i := range messages {
		descriptors, err := unix.ParseUnixRights(&messages[i])
		if err != nil {
			return nil, err
		}
		for _, descriptor := range descriptors {
			unix.CloseOnExec(descriptor)
			files = append(files, os.NewFile(uintptr(descriptor), "volume"))
		}
	}
	return files, nil
}

// start lets the trampoline become the program. It has, when the socket closes without a word.
func (n *inUserNamespace) start(p program) (*os.Process, error) {
	if err := json.NewEncoder(n.socket).Encode(message{Program: &p}); err != nil {
		return nil, fmt.Errorf("hand the command over: %w", err)
	}
	answer := make([]byte, 4096)
	count, _ := n.socket.Read(answer)
	if count == 0 {
		n.started = true
		return n.process, nil
	}
	var failed message
	if err := json.Unmarshal(answer[:count], &failed); err != nil {
		return nil, fmt.Errorf("run %s: %w", p.Path, err)
	}
	if failed.Errno != 0 {
		return nil, notExecuted(p.Path, failed.Errno)
	}
	return nil, failed.err()
}

func (n *inUserNamespace) end() {
	if n.socket != nil {
		_ = n.socket.Close()
	}
	if n.process != nil && !n.started {
		_ = n.process.Kill()
		_, _ = n.process.Wait()
	}
	if n.thread != nil {
		n.thread.end()
	}
}

// Trampoline is the part of inUserNamespace that runs inside the namespaces; the main function calls it first of all with
// os.Args. It returns false in every process but one that a supervisor started for it. It never has more rights than
// whoever started it, and does nothing but what that process tells it over a socket it made.
func Trampoline(args []string) (exitCode int, ours bool) {
	if len(args) != 3 || args[1] != trampolineArgument {
		return 0, false
	}
	descriptor, err := strconv.Atoi(args[2])
	if err != nil || descriptor < 0 {
		return 0, false
	}
	peer, err := unix.GetsockoptUcred(descriptor, unix.SOL_SOCKET, unix.SO_PEERCRED)
	if err != nil || int(peer.Pid) != os.Getppid() {
		return 0, false
	}
	unix.CloseOnExec(descriptor)
	socket := os.NewFile(uintptr(descriptor), "supervisor")
	// Capabilities are a thread's, and the thread that executes the command must be the one that dropped them.
	runtime.LockOSThread()
	if err := become(socket); err != nil {
		_ = json.NewEncoder(socket).Encode(describe(err))
	}
	return ExitFailed, true
}

func describe(err error) message {
	m := message{Error: err.Error()}
	if failure := (*Error)(nil); errors.As(err, &failure) {
		m.Code, m.Next = failure.Code, failure.Next
	}
	if failed := (*executionError)(nil); errors.As(err, &failed) {
		m.Errno = failed.errno
	}
	return m
}

// executionError is why execve failed.
type executionError struct{ errno syscall.Errno }

func (e *executionError) Error() string { return e.errno.Error() }

// become mounts the volume, hands it over, waits for the command and executes it.
func become(socket *os.File) error {
	v, err := mountVolume(WellKnown)
	if err != nil {
		return mountRefused(err)
	}
	descriptors := []int{int(v.dir.Fd())}
	if v.point.held != nil {
		descriptors = append(descriptors, int(v.point.held.Fd()))
	}
	if err := unix.Sendmsg(int(socket.Fd()), []byte("{}"), unix.UnixRights(descriptors...), nil, 0); err != nil {
		return fmt.Errorf("hand the volume over: %w", err)
	}
	var order message
	if err := json.NewDecoder(socket).Decode(&order); err != nil || order.Program == nil {
		// The supervisor is gone, or has changed its mind.
		return errors.New("no command came")
	}
	if err := dropAll(); err != nil {
		return err
	}
	p := order.Program
	err = syscall.Exec(p.Path, p.Args, p.Env)
	errno, _ := err.(syscall.Errno)
	return &executionError{errno}
}

// mountRefused tells a machine that does not permit mounts from one where they went wrong.
func mountRefused(err error) error {
	if hinted := (*Error)(nil); errors.As(err, &hinted) {
		return err
	}
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) {
		return refusal(err)
	}
	return err
}

// dropAll leaves the calling thread no capability that a program it executes would have, and lets that program die with
// the supervisor, as this one was to.
func dropAll() error {
	if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0); err != nil {
		return fmt.Errorf("drop the ambient capabilities: %w", err)
	}
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var none [2]unix.CapUserData
	if err := unix.Capset(&header, &none[0]); err != nil {
		return fmt.Errorf("drop the capabilities: %w", err)
	}
	return unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(syscall.SIGKILL), 0, 0, 0)
}
