package cli

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

// untilSignal returns a context that ends with the first SIGINT or SIGTERM; a
// second one ends the process at once. Only commands that keep running use
// it: the others end on the first signal by themselves.
func untilSignal(parent context.Context) (context.Context, context.CancelFunc) {
	ctx, stop := signal.NotifyContext(parent, os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	return ctx, stop
}

// exit ends the process. It is for kubectl, which does not return its exit
// code; every other command returns an error.
func exit(code int) { os.Exit(code) }
