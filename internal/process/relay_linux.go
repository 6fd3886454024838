package process

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
)

const (
	// relayIdle is how long the command's terminal must be silent, after the command has ended, to be taken as read to the end,
	// where a process that the command left behind holds it; relayRest bounds all these waits together.
	relayIdle = 50 * time.Millisecond
	relayRest = time.Second
	// relayStall is how long the caller's terminal may take for one write of what was shown before the end, a buffer of the
	// kernel's on a slow serial line, and relayLongest for all of it.
	relayStall   = 5 * time.Second
	relayLongest = time.Minute
	// relayLeft is more than the kernel keeps of what the command has shown: what comes after that is of others.
	relayLeft = 64 << 10

	relayBuffer = 32 << 10
	// foregroundEvery is how often a supervisor in the background looks whether it still is: a shell that brings a running
	// command to the foreground sends no signal.
	foregroundEvery = 500 * time.Millisecond
)

// relay gives the command of another user a terminal of its own in place of the caller's, and passes on what is typed
// and shown. Who has the caller's terminal could read what the caller types, and type for the caller.
type relay struct {
	// master is the supervisor's side, and slave the command's.
	master, slave *os.File
	// keys is the caller's terminal, if that is standard input, or -1: opened again, so that no read of it waits.
	keys int
	// output is a terminal of the caller's, opened again if that is standard input.
	output, opened *os.File
	// callers is the supervisor's controlling terminal, nil where it has none.
	callers *terminal
	// wake ends the wait of readKeys.
	wake int
	// stop receives a request to stop the command.
	stop chan struct{}

	started bool
	over    sync.Once
	ending  atomic.Bool
	passed  atomic.Int64 // how often something was written to output
	shown   chan struct{}
	read    chan struct{}

	mu       sync.Mutex
	saved    *unix.Termios // what the caller's terminal is to be again; nil while it is
	released bool          // the supervisor is about to stop, and the terminal the shell's
	closed   bool
}

// newRelay returns nil where none of the files is a terminal. It also returns the files, with the command's terminal for
// each that is one, and the index of the first such file, or -1.
func newRelay(files []*os.File, control *terminal, user User) (r *relay, given []*os.File, first int, err error) {
	first = slices.IndexFunc(files, isTerminal)
	if first == unset {
		return nil, files, unset, nil
	}
	r, err = openRelay(user)
	if err == nil {
		err = r.connect(files)
	}
	if err != nil {
		r.end()
		return nil, nil, unset, &Error{
			Err:  fmt.Errorf("make a terminal for the command: %w", err),
			Next: "redirect its standard input, output and error",
		}
	}
	r.callers = control
	for _, file := range files {
		if isTerminal(file) {
			file = r.slave
		}
		given = append(given, file)
	}
	return r, given, first, nil
}

func isTerminal(file *os.File) bool {
	_, err := unix.IoctlGetTermios(int(file.Fd()), unix.TCGETS)
	return err == nil
}

// openRelay makes the terminal. Its other side is opened by the descriptor, since a path could be another mount's. What
// there is of it is returned with an error too.
func openRelay(user User) (r *relay, err error) {
	r = &relay{keys: unset, wake: unset, stop: make(chan struct{}, 1), shown: make(chan struct{}), read: make(chan struct{})}
	if r.wake, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
		return r, err
	}
	if r.master, err = os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0); err != nil {
		return r, err
	}
	slave := unset
	err = r.control(func(master int) (err error) {
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

// control calls f with the descriptor of the supervisor's side.
func (r *relay) control(f func(master int) error) error {
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

// connect chooses the caller's side, and makes the command's terminal like it.
func (r *relay) connect(files []*os.File) (err error) {
	if isTerminal(files[0]) {
		again := fmt.Sprintf("/proc/self/fd/%d", files[0].Fd())
		if r.keys, err = unix.Open(again, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY|unix.O_CLOEXEC, 0); err != nil {
			return err
		}
		if r.opened, err = os.OpenFile(again, os.O_WRONLY|unix.O_NOCTTY|unix.O_CLOEXEC, 0); err != nil {
			return err
		}
		r.output = r.opened
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
	if r.keys == unset {
		settings.Oflag &^= unix.OPOST // the caller's terminal, which is left as it is, does that
	}
	r.resize()
	return unix.IoctlSetTermios(int(r.slave.Fd()), unix.TCSETS, settings)
}

// resize makes the command's terminal as large as the caller's; the kernel tells its programs.
func (r *relay) resize() {
	if r == nil {
		return
	}
	if size, err := unix.IoctlGetWinsize(int(r.output.Fd()), unix.TIOCGWINSZ); err == nil {
		_ = unix.IoctlSetWinsize(int(r.slave.Fd()), unix.TIOCSWINSZ, size)
	}
}

// run passes on until end is called, for a command whose process group has this number. A panic is given to failed.
func (r *relay) run(group int, failed func(error)) {
	if r == nil {
		return
	}
	pass := func(done chan struct{}, f func()) {
		defer close(done)
		if err := guarded(func() error { f(); return nil })(); err != nil {
			failed(err)
		}
	}
	r.started = true
	go pass(r.shown, r.show)
	go pass(r.read, func() { r.readKeys(group) })
	r.grab()
}

// grab lets every key be the command's terminal's to interpret. In the background the caller's terminal is the shell's.
func (r *relay) grab() {
	if r == nil || r.keys == unset {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.released = false
	r.grabLocked()
}

func (r *relay) grabLocked() {
	if r.saved != nil || r.closed || r.released || !r.callers.isOurs() {
		return
	}
	saved, err := unix.IoctlGetTermios(r.keys, unix.TCGETS)
	if err != nil {
		return
	}
	raw := *saved
	raw.Iflag &^= unix.IGNBRK | unix.BRKINT | unix.PARMRK | unix.ISTRIP | unix.INLCR | unix.IGNCR | unix.ICRNL | unix.IXON
	raw.Oflag &^= unix.OPOST
	raw.Lflag &^= unix.ECHO | unix.ECHONL | unix.ICANON | unix.ISIG | unix.IEXTEN
	raw.Cflag = raw.Cflag&^(unix.CSIZE|unix.PARENB) | unix.CS8
	raw.Cc[unix.VMIN], raw.Cc[unix.VTIME] = 1, 0
	if unix.IoctlSetTermios(r.keys, unix.TCSETS, &raw) == nil {
		r.saved = saved
	}
	r.poke()
}

// release gives the caller's terminal back as it was.
func (r *relay) release() {
	if r == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.released = true
	if r.saved != nil {
		_ = unix.IoctlSetTermios(r.keys, unix.TCSETS, r.saved)
		r.saved = nil
	}
	r.poke()
}

// grabbed reports whether output to the caller's terminal needs a carriage return at the end of each line.
func (r *relay) grabbed() bool {
	if r == nil {
		return false
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.saved != nil
}

// poke has readKeys look again at what it may do.
func (r *relay) poke() {
	if r.wake != unset {
		_, _ = unix.Write(r.wake, []byte{1, 0, 0, 0, 0, 0, 0, 0})
	}
}

// stops returns what receives a request to stop the command.
func (r *relay) stops() <-chan struct{} {
	if r == nil {
		return nil
	}
	return r.stop
}

// show copies what the command shows. A terminal of the caller's that has hung up hangs the command's up.
func (r *relay) show() {
	data, rest, left := make([]byte, relayBuffer), relayRest, relayLeft
	for {
		ending, began := r.ending.Load(), time.Now()
		if ending {
			_ = r.master.SetReadDeadline(began.Add(min(relayIdle, rest)))
		}
		count, err := r.master.Read(data)
		if ending {
			rest, left = rest-time.Since(began), left-count
		}
		if count > 0 {
			if _, failed := r.output.Write(data[:count]); failed != nil {
				_ = r.master.Close()
				return
			}
			r.passed.Add(1)
		}
		if err != nil || left <= 0 {
			return
		}
	}
}

// drain waits until what the command has shown is written, or the caller's terminal takes no more.
func (r *relay) drain() {
	began := time.Now()
	for last, since := r.passed.Load(), began; !within(relayIdle, r.shown); {
		now := r.passed.Load()
		if now != last {
			last, since = now, time.Now()
		}
		if time.Since(since) > relayStall || time.Since(began) > relayLongest {
			return
		}
	}
}

// readKeys copies what is typed while the caller's terminal is grabbed.
func (r *relay) readKeys(group int) {
	data := make([]byte, relayBuffer)
	for {
		keys, closed := r.await()
		if closed {
			return
		}
		if !keys {
			continue
		}
		count, over := r.typed(data)
		if count > 0 && !r.isStop(data[:count], group) {
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

// await returns when something was typed or r changed.
func (r *relay) await() (keys, closed bool) {
	watched, limit := []unix.PollFd{{Fd: int32(r.wake), Events: unix.POLLIN}}, -1
	if r.grabbed() {
		watched = append(watched, unix.PollFd{Fd: int32(r.keys), Events: unix.POLLIN})
	} else if r.keys != unset {
		limit = int(foregroundEvery / time.Millisecond)
	}
	if _, err := unix.Poll(watched, limit); err != nil {
		return false, err != unix.EINTR
	}
	if watched[0].Revents != 0 {
		_, _ = unix.Read(r.wake, make([]byte, 8))
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if limit >= 0 {
		r.grabLocked()
	}
	return len(watched) > 1 && watched[1].Revents != 0, r.closed
}

// typed reads what there is. It returns over when the terminal has hung up.
func (r *relay) typed(data []byte) (count int, over bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.saved == nil {
		return 0, r.closed
	}
	count, err := unix.Read(r.keys, data)
	if count > 0 {
		return count, false
	}
	watched := []unix.PollFd{{Fd: int32(r.keys)}}
	_, pollErr := unix.Poll(watched, 0)
	hungUp := pollErr == nil && watched[0].Revents&(unix.POLLHUP|unix.POLLERR|unix.POLLNVAL) != 0
	return 0, hungUp || err != nil && err != unix.EINTR && err != unix.EAGAIN
}

// isStop reports whether the keys hold the one that stops a program, usually Ctrl-Z, and the program is the command itself.
// The kernel would not stop it: a command that leads its session has no parent there to continue it. The supervisor does.
func (r *relay) isStop(keys []byte, group int) bool {
	settings, err := unix.IoctlGetTermios(int(r.slave.Fd()), unix.TCGETS)
	if err != nil || r.callers == nil || settings.Lflag&unix.ISIG == 0 || settings.Cc[unix.VSUSP] == 0 || bytes.IndexByte(keys, settings.Cc[unix.VSUSP]) < 0 {
		return false
	}
	foreground := 0
	err = r.control(func(master int) (err error) {
		foreground, err = unix.IoctlGetInt(master, unix.TIOCGPGRP)
		return err
	})
	if err != nil || foreground != group {
		return false
	}
	select {
	case r.stop <- struct{}{}:
	default:
	}
	return true
}

// end gives the caller's terminal back, once what the command has shown is there.
func (r *relay) end() {
	if r != nil {
		r.over.Do(r.endOnce)
	}
}

func (r *relay) endOnce() {
	r.ending.Store(true)
	if r.slave != nil {
		_ = r.slave.Close() // so that the other side ends with the last process that holds it
	}
	if r.started {
		_ = r.master.SetReadDeadline(time.Now().Add(relayIdle))
		r.drain()
	}
	r.mu.Lock()
	r.closed = true
	r.mu.Unlock()
	r.release()
	if r.master != nil {
		_ = r.master.Close()
	}
	if r.started && !within(relayRest, r.read) {
		return // its descriptors are in use; the process ends soon
	}
	for _, descriptor := range []int{r.keys, r.wake} {
		if descriptor != unset {
			_ = unix.Close(descriptor)
		}
	}
	if r.opened != nil {
		_ = r.opened.Close()
	}
}

// within reports whether done is closed before the time has passed.
func within(limit time.Duration, done <-chan struct{}) bool {
	select {
	case <-done:
		return true
	case <-time.After(limit):
		return false
	}
}
