package process

import (
	"os"
	"os/signal"
	"syscall"
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
