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

	"lanyard.dev/internal/podannotation"
)

// forwarded are the signals that are meant for the command: all that can be caught, but those that the kernel sends to a
// process for what it did itself. SIGTTOU is left out: who handles it writes for ever where it may not.
func forwarded() []os.Signal {
	list := []os.Signal{
		syscall.SIGHUP, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGTERM, syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGALRM,
		syscall.SIGCONT, syscall.SIGTSTP, syscall.SIGTTIN, syscall.SIGWINCH, syscall.SIGIO, syscall.SIGPWR,
	}
	const firstRealTime, lastRealTime = 35, 64 // 32 to 34 are the C library's
	for number := firstRealTime; number <= lastRealTime; number++ {
		list = append(list, syscall.Signal(number))
	}
	return list
}

// ends tells whether a signal ends a supervisor that has not started its command.
func ends(s os.Signal) bool {
	switch s {
	case syscall.SIGHUP, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGTERM:
		return true
	}
	return false
}

// catch collects signals until the function it returns is called. What was ignored stays so, as nohup wants it.
func catch() (signals chan os.Signal, stop func()) {
	signals = make(chan os.Signal, 64)
	var wanted []os.Signal
	// SIGPIPE is caught and dropped: it would end the supervisor, and with it the command, when nobody reads its words.
	for _, s := range append(forwarded(), syscall.SIGPIPE) {
		if !signal.Ignored(s) {
			wanted = append(wanted, s)
		}
	}
	signal.Notify(signals, wanted...)
	return signals, func() { signal.Stop(signals) }
}

// watchCommand tells when the command stops or ends, until it has ended.
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

// exitCode is a shell's for what a process ended with.
func exitCode(state syscall.WaitStatus) int {
	if state.Signaled() {
		return exitSignal + int(state.Signal())
	}
	return state.ExitStatus()
}

// ending is why a command is to end, and how long it has.
type ending struct {
	reason string
	grace  time.Duration
}

// finish asks for the command's end. The first reason counts.
func (s *supervisor) finish(e ending) {
	select {
	case s.over <- e:
	default:
	}
}

// attend passes signals on until the command has ended, and returns its exit code.
func (s *supervisor) attend(signals <-chan os.Signal, states <-chan syscall.WaitStatus) (code int, err error) {
	over := s.over
	var kill <-chan time.Time
	for {
		select {
		case received := <-signals:
			s.forward(received)
		case state, ok := <-states:
			switch {
			case !ok:
				return 0, errors.New("the command ended, and nobody knows how")
			case state.Stopped():
				s.suspend(state.StopSignal())
			default:
				return exitCode(state), nil
			}
		case <-s.relay.stops():
			s.stopGroup()
		case e := <-over:
			over = nil
			_ = s.command.Signal(syscall.SIGTERM)
			s.say("%s; the command is told to end and has %v", e.reason, e.grace)
			kill = s.Clock.After(e.grace)
		case <-kill:
			_ = s.command.Signal(syscall.SIGKILL)
		}
	}
}

func (s *supervisor) forward(received os.Signal) {
	number, ok := received.(syscall.Signal)
	switch {
	case !ok || number == syscall.SIGTTIN || number == syscall.SIGPIPE:
	case s.apart != nil:
		s.forwardApart(number)
	case !s.terminal.sends(number):
		_ = s.command.Signal(number)
	}
}

// forwardApart passes a signal on to a command in a session of its own, which gets none from the caller's terminal.
func (s *supervisor) forwardApart(number syscall.Signal) {
	switch {
	case number == syscall.SIGWINCH && s.relay != nil:
		s.relay.resize()
	case number == syscall.SIGTSTP:
		s.stopGroup()
	case number == syscall.SIGCONT:
		s.resumeCommand()
	case s.terminal.sends(number):
		s.signalGroup(number)
	default:
		_ = s.command.Signal(number)
	}
}

// signalGroup sends a signal to the process group of a command in a session of its own, while the command is there: the
// number of a group that is gone may be another's.
func (s *supervisor) signalGroup(number syscall.Signal) {
	if s.command.Signal(syscall.Signal(0)) == nil {
		_ = syscall.Kill(-s.command.Pid, number)
	}
}

// stopGroup does what Ctrl-Z would do to the command's process group in the caller's session. In its own, the kernel stops
// it for SIGSTOP alone. A command that handles SIGTSTP gets that, and so does any where no shell would continue it.
func (s *supervisor) stopGroup() {
	if s.terminal == nil || handles(s.command.Pid, syscall.SIGTSTP) {
		s.signalGroup(syscall.SIGTSTP)
		return
	}
	s.signalGroup(syscall.SIGSTOP)
}

// resumeCommand lets a command go on, and gives it the terminal where that is the supervisor's to give.
func (s *supervisor) resumeCommand() {
	if s.apart == nil {
		_ = s.command.Signal(syscall.SIGCONT)
		return
	}
	s.relay.grab()
	s.relay.resize()
	s.signalGroup(syscall.SIGCONT)
}

const (
	// suspendTimeout bounds how long Ctrl-Z may wait for a renewal under way, and then for its own.
	suspendTimeout = time.Second
	// suspensionsPerSecond bounds how often the command can suspend the supervisor, after the first suspensionBurst times.
	suspensionsPerSecond, suspensionBurst = 1, 5
)

// suspend stops the supervisor because the command has stopped, so that the shell takes over, and continues both. As
// nothing can be renewed meanwhile, the lease is made as long as there is, and nobody makes it shorter before both go on.
func (s *supervisor) suspend(signal syscall.Signal) {
	if s.terminal == nil || !stopped(s.command.Pid) {
		return
	}
	// Each suspension costs the authority two requests, in the caller's name, and another user's command may stop itself
	// again and again. One that does is continued.
	if !s.suspensions.Allow() {
		s.resumeCommand()
		return
	}
	soon, cancel := context.WithTimeout(context.Background(), suspendTimeout)
	if s.leasing.Acquire(soon, 1) == nil {
		defer s.leasing.Release(1)
	}
	cancel()
	soon, cancel = context.WithTimeout(context.Background(), suspendTimeout)
	_, _ = vouch(soon, s.pods, s.pod, s.authorityTime().Add(podannotation.MaxLease))
	cancel()
	if signal == syscall.SIGSTOP {
		signal = syscall.SIGTSTP
	}
	s.relay.release()
	stopSelf(signal)
	s.resumeCommand()
	select {
	case s.resumed <- struct{}{}:
	default:
	}
}

// handles reports whether a process ignores or catches a signal.
func handles(pid int, number syscall.Signal) bool {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
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

// stopped tells whether a child is stopped now: the news that it was may be old.
func stopped(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	// The state follows the name, which is in parentheses and may hold any.
	after := stat[bytes.LastIndexByte(stat, ')')+1:]
	return len(after) > 1 && after[1] == 'T'
}
