package cli

import (
	"context"
	"encoding/csv"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/pflag"
	"k8s.io/klog/v2"

	"lanyard.dev/internal/gctune"
	"lanyard.dev/internal/signingkey"
	"lanyard.dev/internal/token"
)

// endMargin is the time between the deadline of a process's last step and the end of the process by the watchdog.
const endMargin = 3 * time.Second

// settleDelay is the time from readiness to gctune.Settle. The controllers make their first calls in between, and what these
// calls leave in memory is released too.
const settleDelay = 3 * time.Second

// settleLater calls gctune.Settle after settleDelay.
func settleLater() *time.Timer { return time.AfterFunc(settleDelay, gctune.Settle) }

// untilSignal returns a context that ends with the first SIGINT or SIGTERM. A second signal ends the process at once. Commands use
// it that run until they are stopped, or that must clean up when they are interrupted; the first signal ends the others by default.
func untilSignal(parent context.Context) (context.Context, context.CancelFunc) {
	ctx, stop := signal.NotifyContext(parent, os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	return ctx, stop
}

// announceStop prints a message when ctx ends. Call the function that it returns when everything has stopped and before ctx
// ends for another reason than a signal, with the error of the command.
func (s streams) announceStop(ctx context.Context) (stopped func(err error)) {
	announced := make(chan struct{})
	cancel := context.AfterFunc(ctx, func() {
		defer close(announced)
		fmt.Fprintln(s.err, "lanyard is stopping; interrupt it again to end it at once")
	})
	return func(err error) {
		if cancel() {
			return // The command ended without a signal.
		}
		<-announced
		if err == nil {
			fmt.Fprintln(s.err, "lanyard has stopped")
		}
	}
}

// exit ends the process. It is for kubectl, which does not return its exit code, and for the watchdog. Other commands return
// errors.
func exit(code int) { os.Exit(code) }

// watchdog ends a process that does not stop in time. Otherwise its supervisor or its user would wait for ever.
type watchdog struct {
	err  io.Writer
	exit func(code int)
}

func newWatchdog(s streams) watchdog { return watchdog{err: s.err, exit: exit} }

// guard ends the process with exitFailure unless cancel is called within limit after stopping is closed.
func (w watchdog) guard(stopping <-chan struct{}, limit time.Duration) (cancel func()) {
	stopped := make(chan struct{})
	go func() {
		select {
		case <-stopping:
		case <-stopped:
			return
		}
		select {
		case <-stopped:
		case <-time.After(limit):
			fmt.Fprintf(w.err, "lanyard: not stopped after %v: ending the process\n", limit)
			w.exit(exitFailure)
		}
	}()
	return func() { close(stopped) }
}

// loggingOptions control the log of a server on standard error.
type loggingOptions struct{ verbosity int }

func (o *loggingOptions) addFlags(f *pflag.FlagSet) {
	f.IntVarP(&o.verbosity, "v", "v", 0, "verbosity of the log: 0 is warnings and errors, 1 adds normal events, higher is for debugging")
}

// apply sends the log of the libraries to w, as key=value lines.
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

// The help of flags that "up" and "serve" share.
const (
	issuersUsage              = "issuer of tokens; may be repeated: the first issues tokens, all are accepted"
	jwksURIUsage              = "https URL of the key set in the discovery document (default: the issuer's /openid/v1/jwks)"
	acceptUnrecordedUsage     = "accept tokens that this authority has no record of, for the time of a takeover from another issuer; until then, a stolen signing key is enough to make valid tokens"
	audienceAlgorithmsUsage   = "signature algorithms that audiences need, such as api://AzureADTokenExchange=RS256; tokens for other audiences are signed with the default key"
	maxTokenExpirationUsage   = "longest lifetime of a token, at least 10m; longer requests are shortened with a warning; 0 means no limit"
	authenticationConfigUsage = "AuthenticationConfiguration file: OpenID Connect issuers whose tokens identify people; read again when it changes"
	acceptedKeysUsage         = "file with public or private keys whose tokens are also accepted; may be repeated; read again when it changes"
	auditModeUsage            = "when audit events are written: blocking (before a request continues), batch (in the background), or blocking-strict (a request whose arrival cannot be recorded fails)"
	admissionConfigUsage      = "AdmissionConfiguration file: the Pod Security Standard for namespaces whose labels select none, and exemptions; read at the start"
)

// audienceAlgorithms is a flag for a token.AlgorithmPolicy: AUDIENCE=ALGORITHM, comma separated and repeatable. An audience may
// contain "=", and in quotes as in CSV also a comma.
type audienceAlgorithms struct{ policy *token.AlgorithmPolicy }

// Type implements pflag.Value.
func (audienceAlgorithms) Type() string { return "audience=algorithm,..." }

// String implements pflag.Value.
func (a audienceAlgorithms) String() string {
	if a.policy == nil {
		return ""
	}
	var entries []string
	for _, audience := range slices.Sorted(maps.Keys(*a.policy)) {
		entries = append(entries, audience+"="+string((*a.policy)[audience]))
	}
	return strings.Join(entries, ",")
}

// Set implements pflag.Value.
func (a audienceAlgorithms) Set(text string) error {
	entries, err := csv.NewReader(strings.NewReader(text)).Read()
	if err != nil {
		return errors.New("must be AUDIENCE=ALGORITHM, comma separated")
	}
	for _, entry := range entries {
		i := strings.LastIndex(entry, "=")
		if i < 1 {
			return fmt.Errorf("%q must be AUDIENCE=ALGORITHM", entry)
		}
		audience, alg := entry[:i], signingkey.Algorithm(entry[i+1:])
		if other, ok := (*a.policy)[audience]; ok && other != alg {
			return fmt.Errorf("the audience %q has two algorithms, %s and %s", audience, other, alg)
		}
		if *a.policy == nil {
			*a.policy = token.AlgorithmPolicy{}
		}
		(*a.policy)[audience] = alg
	}
	return nil
}

func validatePort(port int) error {
	if port < 0 || port > 65535 {
		return fmt.Errorf("--secure-port %d: must be between 0 and 65535", port)
	}
	return nil
}

func validateAddress(address string) error {
	if net.ParseIP(address) == nil {
		return fmt.Errorf("--bind-address %q: must be an IP address", address)
	}
	return nil
}
