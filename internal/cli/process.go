package cli

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// endMargin is what a process has beyond the deadlines of its own steps before the watchdog ends it.
const endMargin = 3 * time.Second

// untilSignal returns a context that ends with the first SIGINT or SIGTERM; a
// second one ends the process at once. Only commands that keep running use
// it: the others end on the first signal by themselves.
func untilSignal(parent context.Context) (context.Context, context.CancelFunc) {
	ctx, stop := signal.NotifyContext(parent, os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	return ctx, stop
}

// sayEnd has the end of ctx announced. The function it returns is to be
// called when everything has ended, before anything else ends ctx; err is how.
func (s streams) sayEnd(ctx context.Context) (ended func(err error)) {
	said := make(chan struct{})
	keepQuiet := context.AfterFunc(ctx, func() {
		defer close(said)
		fmt.Fprintln(s.err, "lanyard is stopping; interrupt it again to end it at once")
	})
	return func(err error) {
		if keepQuiet() {
			return // it ended by itself
		}
		<-said
		if err == nil {
			fmt.Fprintln(s.err, "lanyard has stopped")
		}
	}
}

// exit ends the process. It is for kubectl, which does not return its exit
// code, and for the watchdog; every other command returns an error.
func exit(code int) { os.Exit(code) }

// watchdog ends a process that does not end by itself: its supervisor, or its
// user, would wait for it in vain.
type watchdog struct {
	err  io.Writer
	exit func(code int)
}

func newWatchdog(s streams) watchdog { return watchdog{err: s.err, exit: exit} }

// guard ends the process with exitFailure if the returned function is not
// called within limit after ending is closed.
func (w watchdog) guard(ending <-chan struct{}, limit time.Duration) (callOff func()) {
	ended := make(chan struct{})
	go func() {
		select {
		case <-ending:
		case <-ended:
			return
		}
		select {
		case <-ended:
		case <-time.After(limit):
			fmt.Fprintf(w.err, "lanyard: not stopped after %v: ending the process\n", limit)
			w.exit(exitFailure)
		}
	}()
	return func() { close(ended) }
}
