package cli

import (
	"context"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"time"

	"github.com/spf13/pflag"
	"k8s.io/klog/v2"
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

// loggingOptions rule what a server writes to stderr.
type loggingOptions struct{ verbosity int }

func (o *loggingOptions) addFlags(f *pflag.FlagSet) {
	f.IntVarP(&o.verbosity, "v", "v", 0, "verbosity of the log: 0 is warnings and errors, 1 adds what happens, higher is for debugging")
}

// apply sends the libraries' log to w as key=value lines.
func (o *loggingOptions) apply(w io.Writer) {
	level := slog.LevelWarn
	if o.verbosity > 0 {
		level = slog.Level(-o.verbosity)
	}
	klog.SetSlogLogger(slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: level})))
	flags := flag.NewFlagSet("klog", flag.ContinueOnError)
	klog.InitFlags(flags)
	_ = flags.Set("v", strconv.Itoa(o.verbosity))
}

const (
	issuersUsage              = "issuer of tokens; may be repeated: the first issues, all are accepted"
	jwksURIUsage              = "https URL of the key set in the discovery document (default: the issuer's /openid/v1/jwks)"
	authenticationConfigUsage = "AuthenticationConfiguration: OpenID Connect issuers by whose tokens people sign in; read again when it changes"
	acceptedKeysUsage         = "public or private keys whose tokens are accepted besides; may be repeated"
	auditModeUsage            = "when audit events are written: blocking (before a request goes on), batch (in the background), or blocking-strict (a request whose arrival cannot be recorded fails)"
	admissionConfigUsage      = "AdmissionConfiguration: the Pod Security Standard for namespaces whose labels choose none, and exemptions; read at the start"
)

func validPort(port int) error {
	if port < 0 || port > 65535 {
		return fmt.Errorf("--secure-port %d: must be between 0 and 65535", port)
	}
	return nil
}

func validAddress(address string) error {
	if net.ParseIP(address) == nil {
		return fmt.Errorf("--bind-address %q: must be an IP address", address)
	}
	return nil
}
