package cli

import (
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strconv"

	"github.com/spf13/pflag"
	"k8s.io/klog/v2"
)

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
