package process

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"

	"lanyard.dev/internal/files"
	"lanyard.dev/internal/podannotation"
	"lanyard.dev/internal/runas"
)

// forwardedSignals returns the signals that the supervisor forwards to the command: all that a process can catch, except those
// that the kernel sends for an action of the process itself. SIGTTOU is missing because a process that catches it repeats the
// write to a terminal for ever.
func forwardedSignals() []os.Signal {
	list := []os.Signal{
		syscall.SIGHUP, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGTERM, syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGALRM,
		syscall.SIGCONT, syscall.SIGTSTP, syscall.SIGTTIN, syscall.SIGWINCH, syscall.SIGIO, syscall.SIGPWR,
	}
	const firstRealTime, lastRealTime = 35, 64 // The C library uses 32 to 34.
	for number := firstRealTime; number <= lastRealTime; number++ {
		list = append(list, syscall.Signal(number))
	}
	return list
}

// interruptsStart reports whether a signal ends a supervisor that has not started its command yet.
func interruptsStart(s os.Signal) bool {
	switch s {
	case syscall.SIGHUP, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGTERM:
		return true
	}
	return false
}

// notifySignals delivers signals until stop is called. A signal that was ignored when the process started stays ignored, as nohup
// requires.
func notifySignals() (signals chan os.Signal, stop func()) {
	signals = make(chan os.Signal, 64)
	var wanted []os.Signal
	// SIGPIPE is caught and dropped. It would end the supervisor, and with it the command, when standard error is closed.
	for _, s := range append(forwardedSignals(), syscall.SIGPIPE) {
		if !signal.Ignored(s) {
			wanted = append(wanted, s)
		}
	}
	signal.Notify(signals, wanted...)
	return signals, func() { signal.Stop(signals) }
}

// watchCommand delivers the states in which the command stops or ends. It closes the channel when the command has ended.
func watchCommand(pid int) <-chan syscall.WaitStatus {
	states := make(chan syscall.WaitStatus, 1)
	go func() {
		defer close(states)
		for {
			var state syscall.WaitStatus
			_, err := syscall.Wait4(pid, &state, syscall.WUNTRACED, nil)
			if err == syscall.EINTR {
				continue
			}
			if err != nil {
				return
			}
			states <- state
			if state.Exited() || state.Signaled() {
				return
			}
		}
	}()
	return states
}

// exitCode returns the exit code that a shell would report.
func exitCode(state syscall.WaitStatus) int {
	if state.Signaled() {
		return exitSignal + int(state.Signal())
	}
	return state.ExitStatus()
}

// termination is a reason to end the command. grace is the time between SIGTERM and SIGKILL.
type termination struct {
	reason string
	grace  time.Duration
}

// terminate requests the end of the command. Only the first request has an effect.
func (s *supervisor) terminate(t termination) {
	select {
	case s.terminations <- t:
	default:
	}
}

// awaitCommand forwards signals until the command has ended, and returns its exit code.
func (s *supervisor) awaitCommand(signals <-chan os.Signal, states <-chan syscall.WaitStatus) (code int, err error) {
	terminations := s.terminations
	var kill <-chan time.Time
	for {
		select {
		case received := <-signals:
			s.forward(received)
		case state, ok := <-states:
			switch {
			case !ok:
				return 0, errors.New("the command ended, but its exit status is unknown")
			case state.Stopped():
				s.suspend(state.StopSignal())
			default:
				return exitCode(state), nil
			}
		case <-s.relay.StopRequests():
			s.stopGroup()
		case t := <-terminations:
			terminations = nil
			_ = s.command.Signal(syscall.SIGTERM)
			s.printf("%s; the command was sent SIGTERM and is killed in %v", t.reason, t.grace)
			kill = s.Clock.After(t.grace)
		case <-kill:
			_ = s.command.Signal(syscall.SIGKILL)
		}
	}
}

func (s *supervisor) forward(received os.Signal) {
	number, ok := received.(syscall.Signal)
	switch {
	case !ok || number == syscall.SIGTTIN || number == syscall.SIGPIPE:
	case s.isolation != nil:
		s.forwardToSession(number)
	case !s.terminal.Sends(number):
		_ = s.command.Signal(number)
	}
}

// forwardToSession forwards a signal to a command in a session of its own, which gets no signals from the caller's terminal.
func (s *supervisor) forwardToSession(number syscall.Signal) {
	switch {
	case number == syscall.SIGWINCH && s.relay != nil:
		s.relay.Resize()
	case number == syscall.SIGTSTP:
		s.stopGroup()
	case number == syscall.SIGCONT:
		s.resumeCommand()
	case s.terminal.Sends(number):
		s.signalGroup(number)
	default:
		_ = s.command.Signal(number)
	}
}

// signalGroup sends a signal to the process group of a command in a session of its own. It does so only while the command exists,
// because the kernel may use the number again for another group.
func (s *supervisor) signalGroup(number syscall.Signal) {
	if s.command.Signal(syscall.Signal(0)) == nil {
		_ = syscall.Kill(-s.command.Pid, number)
	}
}

// stopGroup stops the command's process group, as Ctrl-Z would in the caller's session. In a session of its own the group is
// orphaned, so the kernel stops it by SIGSTOP only. A command that handles SIGTSTP gets SIGTSTP, and so does one without a
// controlling terminal, since no shell would continue it.
func (s *supervisor) stopGroup() {
	if s.terminal == nil || handlesSignal(s.command.Pid, syscall.SIGTSTP) {
		s.signalGroup(syscall.SIGTSTP)
		return
	}
	s.signalGroup(syscall.SIGSTOP)
}

// resumeCommand continues the command and, if the command has a terminal of its own, makes the caller's terminal raw again.
func (s *supervisor) resumeCommand() {
	if s.isolation == nil {
		_ = s.command.Signal(syscall.SIGCONT)
		return
	}
	s.relay.TakeTerminal()
	s.relay.Resize()
	s.signalGroup(syscall.SIGCONT)
}

const (
	// suspendTimeout bounds how long Ctrl-Z waits for a renewal in progress, and again for the renewal of a suspension.
	suspendTimeout = time.Second
	// suspensionsPerSecond bounds how often the command can suspend the supervisor, after the first suspensionBurst times.
	suspensionsPerSecond, suspensionBurst = 1, 5
)

// suspend stops the supervisor after the command has stopped, so that the shell takes over, and later continues both. Nothing
// can be renewed in between, so it extends the lease to the maximum before, and holds leaseLock so that no renewal shortens it.
func (s *supervisor) suspend(signal syscall.Signal) {
	if s.terminal == nil || !isStopped(s.command.Pid) {
		return
	}
	// Each suspension makes two requests in the caller's name, and a command of another user can stop itself again and again.
	// If it does so too often, it is continued.
	if !s.suspensions.Allow() {
		s.resumeCommand()
		return
	}
	soon, cancel := context.WithTimeout(context.Background(), suspendTimeout)
	if s.leaseLock.Acquire(soon, 1) == nil {
		defer s.leaseLock.Release(1)
	}
	cancel()
	soon, cancel = context.WithTimeout(context.Background(), suspendTimeout)
	_, _ = extendLease(soon, s.pods, s.pod, s.authorityTime().Add(podannotation.MaxLease))
	cancel()
	if signal == syscall.SIGSTOP {
		signal = syscall.SIGTSTP
	}
	s.relay.RestoreTerminal()
	runas.StopSelf(signal)
	s.resumeCommand()
	select {
	case s.resumed <- struct{}{}:
	default:
	}
}

// handlesSignal reports whether a process ignores or catches a signal.
func handlesSignal(pid int, number syscall.Signal) bool {
	status, err := files.Read(fmt.Sprintf("/proc/%d/status", pid), files.MaxText)
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(status)) {
		name, value, _ := strings.Cut(line, ":")
		if name != "SigIgn" && name != "SigCgt" {
			continue
		}
		mask, err := strconv.ParseUint(strings.TrimSpace(value), 16, 64)
		if err == nil && mask&(1<<(number-1)) != 0 {
			return true
		}
	}
	return false
}

// isStopped reports whether a child is stopped now. A wait status may be out of date.
func isStopped(pid int) bool {
	stat, err := files.Read(fmt.Sprintf("/proc/%d/stat", pid), files.MaxText)
	if err != nil {
		return false
	}
	// The state follows the name, which is in parentheses and may itself contain parentheses.
	after := stat[bytes.LastIndexByte(stat, ')')+1:]
	return len(after) > 1 && after[1] == 'T'
}
