package process

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"lanyard.dev/internal/workload"
)

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
	if !ok || number == syscall.SIGTTIN || number == syscall.SIGPIPE || s.terminal.sends(number) {
		return
	}
	_ = s.command.Signal(number)
}

// suspendTimeout bounds how long Ctrl-Z may wait for a renewal under way, and then for its own.
const suspendTimeout = time.Second

// suspend stops the supervisor because the command has stopped, so that the shell takes over, and continues both. As
// nothing can be renewed meanwhile, the lease is made as long as there is, and nobody makes it shorter before both go on.
func (s *supervisor) suspend(signal syscall.Signal) {
	if s.terminal == nil || !stopped(s.command.Pid) {
		return
	}
	soon, cancel := context.WithTimeout(context.Background(), suspendTimeout)
	if s.leasing.Acquire(soon, 1) == nil {
		defer s.leasing.Release(1)
	}
	cancel()
	soon, cancel = context.WithTimeout(context.Background(), suspendTimeout)
	_, _ = vouch(soon, s.pods, s.pod, s.authorityTime().Add(workload.MaxLease))
	cancel()
	if signal == syscall.SIGSTOP {
		signal = syscall.SIGTSTP
	}
	stopSelf(signal)
	_ = s.command.Signal(syscall.SIGCONT)
	select {
	case s.resumed <- struct{}{}:
	default:
	}
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
