package runas

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"lanyard.dev/internal/hint"
)

const (
	// After the command has ended, a process that it left behind may still hold its terminal. The output is treated as complete
	// when the terminal has been silent for outputSilence. outputTail bounds all these waits together.
	outputSilence = 50 * time.Millisecond
	outputTail    = time.Second
	// writeLimit bounds one write to the caller's terminal after the command has ended. It allows for a full kernel buffer on a
	// slow serial line. drainLimit bounds all of these writes.
	writeLimit = 5 * time.Second
	drainLimit = time.Minute
	// maxTail is more than the kernel buffers of a terminal's output. What is read beyond it after the end of the command was
	// written by other processes.
	maxTail = 64 << 10

	copyBuffer = 32 << 10
	// foregroundInterval is the time between checks of whether a supervisor in the background is in the foreground now. A shell
	// that brings a running job to the foreground sends no signal.
	foregroundInterval = 500 * time.Millisecond
)

// Relay gives a command of another user a pseudo terminal of its own, and copies input and output between that and the caller's
// terminal. A command that had the caller's terminal itself could read what the caller types, and could type for the caller.
//
// A nil Relay is valid: it is the Relay of a command without a terminal. The methods may be called from several goroutines.
type Relay struct {
	// master is the supervisor's side of the pseudo terminal, slave the command's.
	master, slave *os.File
	// input is the caller's terminal if that is standard input, else -1. It is opened again, because reads must not block.
	input int
	// output is the caller's terminal. reopened is the same file if it had to be opened again.
	output, reopened *os.File
	// controlling is the supervisor's controlling terminal, or nil.
	controlling *ControllingTerminal
	// wakeup is an eventfd that ends waitForInput.
	wakeup int
	// stopRequests receives a value when the user types the key that stops a job.
	stopRequests chan struct{}

	started    bool
	closeOnce  sync.Once
	ending     atomic.Bool
	writes     atomic.Int64 // number of writes to output
	outputDone chan struct{}
	inputDone  chan struct{}

	mu       sync.Mutex
	saved    *unix.Termios // settings of the caller's terminal while it is raw, else nil
	released bool          // the terminal stays with the shell until TakeTerminal
	closed   bool
}

// NewRelay returns a Relay for a command that would get these files as standard input, output and error. It also returns the
// files that the command gets instead, with the pseudo terminal in place of each terminal, and the index of the first terminal
// among them. If no file is a terminal, the Relay is nil and the index -1.
func NewRelay(files []*os.File, controlling *ControllingTerminal, user User) (r *Relay, given []*os.File, first int, err error) {
	first = slices.IndexFunc(files, isTerminal)
	if first == unset {
		return nil, files, unset, nil
	}
	r, err = openRelay(user)
	if err == nil {
		err = r.connect(files)
	}
	if err != nil {
		r.Close()
		return nil, nil, unset, hint.New(fmt.Errorf("make a terminal for the command: %w", err), "redirect its standard input, output and error")
	}
	r.controlling = controlling
	for _, file := range files {
		given = append(given, r.Replace(file))
	}
	return r, given, first, nil
}

// Replace returns the pseudo terminal in place of a file that is a terminal, and every other file unchanged.
func (r *Relay) Replace(file *os.File) *os.File {
	if r != nil && isTerminal(file) {
		return r.slave
	}
	return file
}

func isTerminal(file *os.File) bool {
	_, err := unix.IoctlGetTermios(int(file.Fd()), unix.TCGETS)
	return err == nil
}

// openRelay makes the pseudo terminal. With an error it returns what was opened so far. The command's side is opened from the
// descriptor of the other, since a path in /dev/pts could belong to another mount.
func openRelay(user User) (r *Relay, err error) {
	r = &Relay{input: unset, wakeup: unset, stopRequests: make(chan struct{}, 1), outputDone: make(chan struct{}), inputDone: make(chan struct{})}
	if r.wakeup, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
		return r, err
	}
	if r.master, err = os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0); err != nil {
		return r, err
	}
	slave := unset
	err = r.controlMaster(func(master int) (err error) {
		if err = unix.IoctlSetPointerInt(master, unix.TIOCSPTLCK, 0); err == nil {
			slave, err = openPeer(master)
		}
		return err
	})
	if err != nil {
		return r, err
	}
	r.slave = os.NewFile(uintptr(slave), "terminal")
	return r, errors.Join(r.slave.Chown(user.UID, unset), r.slave.Chmod(0o600))
}

// controlMaster calls f with the descriptor of the supervisor's side.
func (r *Relay) controlMaster(f func(master int) error) error {
	raw, err := r.master.SyscallConn()
	if err != nil {
		return err
	}
	return errors.Join(raw.Control(func(master uintptr) { err = f(int(master)) }), err)
}

func openPeer(master int) (slave int, err error) {
	descriptor, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(master), unix.TIOCGPTPEER, unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC)
	if errno != 0 {
		return unset, errno
	}
	return int(descriptor), nil
}

// connect selects the caller's terminal for each direction, and copies its settings and size to the pseudo terminal.
func (r *Relay) connect(files []*os.File) (err error) {
	if isTerminal(files[0]) {
		path := fmt.Sprintf("/proc/self/fd/%d", files[0].Fd())
		if r.input, err = unix.Open(path, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY|unix.O_CLOEXEC, 0); err != nil {
			return err
		}
		if r.reopened, err = os.OpenFile(path, os.O_WRONLY|unix.O_NOCTTY|unix.O_CLOEXEC, 0); err != nil {
			return err
		}
		r.output = r.reopened
	}
	for _, file := range []*os.File{files[2], files[1]} {
		if isTerminal(file) {
			r.output = file
		}
	}
	settings, err := unix.IoctlGetTermios(int(r.output.Fd()), unix.TCGETS)
	if err != nil {
		return err
	}
	if r.input == unset {
		settings.Oflag &^= unix.OPOST // The caller's terminal keeps its settings and processes the output.
	}
	r.Resize()
	return unix.IoctlSetTermios(int(r.slave.Fd()), unix.TCSETS, settings)
}

// Resize makes the pseudo terminal as large as the caller's. The kernel notifies the programs in it.
func (r *Relay) Resize() {
	if r == nil {
		return
	}
	if size, err := unix.IoctlGetWinsize(int(r.output.Fd()), unix.TIOCGWINSZ); err == nil {
		_ = unix.IoctlSetWinsize(int(r.slave.Fd()), unix.TIOCSWINSZ, size)
	}
}

// Start begins to copy, for a command with this process group, until Close. If a copying goroutine panics, it calls failed.
func (r *Relay) Start(group int, failed func(error)) {
	if r == nil {
		return
	}
	run := func(done chan struct{}, f func()) {
		defer close(done)
		defer func() {
			if cause := recover(); cause != nil {
				failed(fmt.Errorf("internal error: %v", cause))
			}
		}()
		f()
	}
	r.started = true
	go run(r.outputDone, r.copyOutput)
	go run(r.inputDone, func() { r.copyInput(group) })
	r.TakeTerminal()
}

// TakeTerminal makes the caller's terminal raw, so that the pseudo terminal interprets every key. If the supervisor is in the
// background, that waits until it is in the foreground.
func (r *Relay) TakeTerminal() {
	if r == nil || r.input == unset {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.released = false
	r.takeTerminalLocked()
}

func (r *Relay) takeTerminalLocked() {
	if r.saved != nil || r.closed || r.released || !r.controlling.InForeground() {
		return
	}
	saved, err := unix.IoctlGetTermios(r.input, unix.TCGETS)
	if err != nil {
		return
	}
	raw := *saved
	raw.Iflag &^= unix.IGNBRK | unix.BRKINT | unix.PARMRK | unix.ISTRIP | unix.INLCR | unix.IGNCR | unix.ICRNL | unix.IXON
	raw.Oflag &^= unix.OPOST
	raw.Lflag &^= unix.ECHO | unix.ECHONL | unix.ICANON | unix.ISIG | unix.IEXTEN
	raw.Cflag = raw.Cflag&^(unix.CSIZE|unix.PARENB) | unix.CS8
	raw.Cc[unix.VMIN], raw.Cc[unix.VTIME] = 1, 0
	if unix.IoctlSetTermios(r.input, unix.TCSETS, &raw) == nil {
		r.saved = saved
	}
	r.wakeInput()
}

// RestoreTerminal gives the caller's terminal its settings back, until TakeTerminal.
func (r *Relay) RestoreTerminal() {
	if r == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.released = true
	if r.saved != nil {
		_ = unix.IoctlSetTermios(r.input, unix.TCSETS, r.saved)
		r.saved = nil
	}
	r.wakeInput()
}

// IsRaw reports whether the caller's terminal is raw. Lines written to it must then end with a carriage return and a line feed.
func (r *Relay) IsRaw() bool {
	if r == nil {
		return false
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.saved != nil
}

// wakeInput ends waitForInput.
func (r *Relay) wakeInput() {
	if r.wakeup != unset {
		_, _ = unix.Write(r.wakeup, []byte{1, 0, 0, 0, 0, 0, 0, 0})
	}
}

// StopRequests returns a channel that receives a value when the user types the key that stops a job.
func (r *Relay) StopRequests() <-chan struct{} {
	if r == nil {
		return nil
	}
	return r.stopRequests
}

// copyOutput copies from the pseudo terminal to the caller's. If the caller's terminal has hung up, it hangs up the pseudo
// terminal.
func (r *Relay) copyOutput() {
	data, timeLeft, bytesLeft := make([]byte, copyBuffer), outputTail, maxTail
	for {
		ending, began := r.ending.Load(), time.Now()
		if ending {
			_ = r.master.SetReadDeadline(began.Add(min(outputSilence, timeLeft)))
		}
		count, err := r.master.Read(data)
		if ending {
			timeLeft, bytesLeft = timeLeft-time.Since(began), bytesLeft-count
		}
		if count > 0 {
			if _, failed := r.output.Write(data[:count]); failed != nil {
				_ = r.master.Close()
				return
			}
			r.writes.Add(1)
		}
		if err != nil || bytesLeft <= 0 {
			return
		}
	}
}

// drain waits until the command's output is written, or until the caller's terminal accepts no more.
func (r *Relay) drain() {
	began := time.Now()
	for last, since := r.writes.Load(), began; !closedWithin(outputSilence, r.outputDone); {
		now := r.writes.Load()
		if now != last {
			last, since = now, time.Now()
		}
		if time.Since(since) > writeLimit || time.Since(began) > drainLimit {
			return
		}
	}
}

// copyInput copies what the user types, while the caller's terminal is raw.
func (r *Relay) copyInput(group int) {
	data := make([]byte, copyBuffer)
	for {
		readable, closed := r.waitForInput()
		if closed {
			return
		}
		if !readable {
			continue
		}
		count, over := r.readInput(data)
		if count > 0 && !r.requestsStop(data[:count], group) {
			if _, err := r.master.Write(data[:count]); err != nil {
				return
			}
		}
		if over {
			_ = r.master.Close()
			return
		}
	}
}

// waitForInput returns when the user has typed something or the state of r has changed.
func (r *Relay) waitForInput() (readable, closed bool) {
	watched, limit := []unix.PollFd{{Fd: int32(r.wakeup), Events: unix.POLLIN}}, -1
	if r.IsRaw() {
		watched = append(watched, unix.PollFd{Fd: int32(r.input), Events: unix.POLLIN})
	} else if r.input != unset {
		limit = int(foregroundInterval / time.Millisecond)
	}
	if _, err := unix.Poll(watched, limit); err != nil {
		return false, err != unix.EINTR
	}
	if watched[0].Revents != 0 {
		_, _ = unix.Read(r.wakeup, make([]byte, 8))
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if limit >= 0 {
		r.takeTerminalLocked()
	}
	return len(watched) > 1 && watched[1].Revents != 0, r.closed
}

// readInput reads without blocking. It returns over when the caller's terminal has hung up.
func (r *Relay) readInput(data []byte) (count int, over bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.saved == nil {
		return 0, r.closed
	}
	count, err := unix.Read(r.input, data)
	if count > 0 {
		return count, false
	}
	watched := []unix.PollFd{{Fd: int32(r.input)}}
	_, pollErr := unix.Poll(watched, 0)
	hungUp := pollErr == nil && watched[0].Revents&(unix.POLLHUP|unix.POLLERR|unix.POLLNVAL) != 0
	return 0, hungUp || err != nil && err != unix.EINTR && err != unix.EAGAIN
}

// requestsStop reports whether the input holds the key that stops a job, usually Ctrl-Z, while the command itself is in the
// foreground of the pseudo terminal; it then sends a stop request. The kernel would ignore the key: the command leads its
// session, so its process group is orphaned.
func (r *Relay) requestsStop(input []byte, group int) bool {
	settings, err := unix.IoctlGetTermios(int(r.slave.Fd()), unix.TCGETS)
	if err != nil || r.controlling == nil || settings.Lflag&unix.ISIG == 0 || settings.Cc[unix.VSUSP] == 0 || bytes.IndexByte(input, settings.Cc[unix.VSUSP]) < 0 {
		return false
	}
	foreground := 0
	err = r.controlMaster(func(master int) (err error) {
		foreground, err = unix.IoctlGetInt(master, unix.TIOCGPGRP)
		return err
	})
	if err != nil || foreground != group {
		return false
	}
	select {
	case r.stopRequests <- struct{}{}:
	default:
	}
	return true
}

// Close writes the rest of the command's output and restores the caller's terminal. Further calls have no effect.
func (r *Relay) Close() {
	if r != nil {
		r.closeOnce.Do(r.close)
	}
}

func (r *Relay) close() {
	r.ending.Store(true)
	if r.slave != nil {
		_ = r.slave.Close() // Reads of the other side then end with the last process that holds the terminal.
	}
	if r.started {
		_ = r.master.SetReadDeadline(time.Now().Add(outputSilence))
		r.drain()
	}
	r.mu.Lock()
	r.closed = true
	r.mu.Unlock()
	r.RestoreTerminal()
	if r.master != nil {
		_ = r.master.Close()
	}
	if r.started && !closedWithin(outputTail, r.inputDone) {
		return // copyInput still uses the descriptors. The process ends soon.
	}
	for _, descriptor := range []int{r.input, r.wakeup} {
		if descriptor != unset {
			_ = unix.Close(descriptor)
		}
	}
	if r.reopened != nil {
		_ = r.reopened.Close()
	}
}

// closedWithin reports whether done is closed before the limit has passed.
func closedWithin(limit time.Duration, done <-chan struct{}) bool {
	select {
	case <-done:
		return true
	case <-time.After(limit):
		return false
	}
}
