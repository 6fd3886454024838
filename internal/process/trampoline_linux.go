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

	"lanyard.dev/internal/hint"
)

// trampolineArgument is the first argument of the program when it runs as the trampoline. The second is the descriptor of a
// socket.
const trampolineArgument = "exec-trampoline"

// message is what trampoline and supervisor send each other, as JSON.
type message struct {
	Error string `json:"error,omitempty"`
	Hint  string `json:"hint,omitempty"`
	Code  int    `json:"code,omitempty"`
	// Errno is the error number of a failed execve.
	Errno   syscall.Errno `json:"errno,omitempty"`
	Program *program      `json:"program,omitempty"`
}

func (m message) err() error {
	if m.Error == "" {
		return nil
	}
	return &Error{Code: m.Code, Err: hint.New(errors.New(m.Error), m.Hint)}
}

// inUserNamespace starts the command through a trampoline: this program, started again in a user namespace and a mount namespace.
type inUserNamespace struct {
	files    []*os.File
	ownGroup bool // whether the command gets a process group of its own
	thread   *thread
	process  *os.Process
	socket   *net.UnixConn
	started  bool
}

func (n *inUserNamespace) prepare() (*volume, error) {
	n.thread = newThread()
	descriptor, err := n.connect()
	if err != nil {
		return nil, err
	}
	err = n.startTrampoline(descriptor)
	_ = unix.Close(descriptor)
	if err != nil {
		return nil, namespaceRefused(err)
	}
	return n.receiveVolume()
}

// connect makes a pair of sockets and returns the descriptor for the trampoline. The descriptor keeps its number there, because
// another number could belong to a descriptor that the command inherits.
func (n *inUserNamespace) connect() (descriptor int, err error) {
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

func (n *inUserNamespace) startTrampoline(socket int) (err error) {
	uid, gid := os.Geteuid(), os.Getegid()
	attributes := &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: uid, HostID: uid, Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: gid, HostID: gid, Size: 1}},
		// Of the capabilities of a user other than root, only ambient ones survive execve.
		AmbientCaps: []uintptr{unix.CAP_SYS_ADMIN},
		Pdeathsig:   syscall.SIGKILL, Setpgid: n.ownGroup,
	}
	argv := []string{os.Args[0], trampolineArgument, strconv.Itoa(socket)}
	n.thread.do(func() {
		if _, err = unix.FcntlInt(uintptr(socket), unix.F_SETFD, 0); err == nil {
			n.process, err = os.StartProcess("/proc/self/exe", argv, &os.ProcAttr{Env: os.Environ(), Files: n.files, Sys: attributes})
		}
	})
	return err
}

// receiveVolume receives the descriptors of the volume from the trampoline.
func (n *inUserNamespace) receiveVolume() (*volume, error) {
	text, rights := make([]byte, 4096), make([]byte, unix.CmsgSpace(2*4))
	count, rightsCount, _, _, err := n.socket.ReadMsgUnix(text, rights)
	if err != nil {
		return nil, fmt.Errorf("the process that mounts the volume ended: %w", err)
	}
	var answer message
	if err := json.Unmarshal(text[:count], &answer); err != nil {
		return nil, fmt.Errorf("the process that mounts the volume ended: %w", err)
	}
	if err := answer.err(); err != nil {
		return nil, err
	}
	files, err := receiveFiles(rights[:rightsCount])
	if err != nil || len(files) == 0 {
		return nil, errors.Join(errors.New("the process that mounts the volume sent no descriptors"), err)
	}
	v := &volume{dir: files[0]}
	if len(files) > 1 {
		v.point = &mountPoint{locked: files[1]}
	}
	return v, nil
}

func receiveFiles(rights []byte) (files []*os.File, err error) {
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

// start makes the trampoline execute the program. If that succeeds, the socket closes without an answer.
func (n *inUserNamespace) start(p program) (*os.Process, error) {
	if err := json.NewEncoder(n.socket).Encode(message{Program: &p}); err != nil {
		return nil, fmt.Errorf("send the command: %w", err)
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
		return nil, executionFailure(p.Path, failed.Errno)
	}
	return nil, failed.err()
}

func (n *inUserNamespace) release() {
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

// Trampoline is the part of inUserNamespace that runs inside the namespaces. The main function must call it before anything
// else, with os.Args. It returns false unless a supervisor started the process as a trampoline. The trampoline has no more
// rights than the process that started it, and accepts orders only from that process, over a socket between the two.
func Trampoline(args []string) (exitCode int, isTrampoline bool) {
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
	// Capabilities belong to a thread, and the thread that drops them must be the one that executes the command.
	runtime.LockOSThread()
	if err := mountAndExecute(socket); err != nil {
		_ = json.NewEncoder(socket).Encode(errorMessage(err))
	}
	return ExitFailed, true
}

func errorMessage(err error) message {
	m := message{Error: err.Error(), Code: ExitCode(err), Hint: hint.Of(err)}
	if failed := (*executionError)(nil); errors.As(err, &failed) {
		m.Errno = failed.errno
	}
	return m
}

// executionError is a failure of execve.
type executionError struct{ errno syscall.Errno }

func (e *executionError) Error() string { return e.errno.Error() }

// mountAndExecute mounts the volume, sends its descriptors to the supervisor, waits for the command and executes it.
func mountAndExecute(socket *os.File) error {
	v, err := mountVolume(WellKnown)
	if err != nil {
		return explainMountError(err)
	}
	descriptors := []int{int(v.dir.Fd())}
	if v.point.locked != nil {
		descriptors = append(descriptors, int(v.point.locked.Fd()))
	}
	if err := unix.Sendmsg(int(socket.Fd()), []byte("{}"), unix.UnixRights(descriptors...), nil, 0); err != nil {
		return fmt.Errorf("send the descriptors of the volume: %w", err)
	}
	var order message
	if err := json.NewDecoder(socket).Decode(&order); err != nil || order.Program == nil {
		// The supervisor has ended or failed.
		return errors.New("the supervisor sent no command")
	}
	if err := dropCapabilities(); err != nil {
		return err
	}
	p := order.Program
	err = syscall.Exec(p.Path, p.Args, p.Env)
	errno, _ := err.(syscall.Errno)
	return &executionError{errno}
}

// explainMountError adds the reason if the machine does not permit mounts.
func explainMountError(err error) error {
	if hint.Of(err) == "" && (errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES)) {
		return namespaceRefused(err)
	}
	return err
}

// dropCapabilities drops all capabilities that a program which the calling thread executes would have. It then sets the
// parent-death signal, which the kernel clears when capabilities change, so that the program ends with the supervisor.
func dropCapabilities() error {
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
