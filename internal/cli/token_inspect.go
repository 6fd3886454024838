package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/utils/clock"

	"lanyard.dev/internal/token"
)

const inspectHelp = `Show what a token says about itself: its header, its claims, and how much of
its life is left. Nothing is verified: anyone can write a token that says
anything. To learn whether one is genuine, use lanyard token verify.

The token is the argument, or is read from standard input if that is "-" or
absent. Prefer standard input: other users of the machine can see arguments.
The signature is never printed, so the output cannot be used as a token.`

const inspectExamples = `  # What is in a fresh token of the account "default"?
  lanyard kubectl create token default | lanyard token inspect

  # Its claims alone
  lanyard kubectl create token default | lanyard token inspect -o json`

// copiedWhole is the next step when a token cannot be read.
const copiedWhole = "give the token alone and whole, without \"Bearer\" and quotes: three parts of letters, digits, - and _, with a dot between them"

type inspectOptions struct {
	input  tokenInput
	output outputOptions
	clock  clock.PassiveClock
}

func newTokenInspect(s streams) *cobra.Command {
	return newTokenInspectAt(s, clock.RealClock{})
}

func newTokenInspectAt(s streams, c clock.PassiveClock) *cobra.Command {
	o := &inspectOptions{input: tokenInput{streams: s}, clock: c}
	cmd := &cobra.Command{
		Use:     "inspect [TOKEN|-]",
		Short:   "Show what a token says, without verifying it",
		Long:    inspectHelp,
		Example: inspectExamples,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := o.input.complete(cmd, args); err != nil {
				return err
			}
			if err := o.output.validate(); err != nil {
				return usageError(cmd, err)
			}
			return o.run()
		},
	}
	o.output.addFlags(cmd)
	return cmd
}

// inspection is the result of lanyard token inspect.
type inspection struct {
	Verified bool            `json:"verified"` // never true; it is there to be read
	Header   json.RawMessage `json:"header"`
	Claims   json.RawMessage `json:"claims"`
	Lifetime *lifetime       `json:"lifetime,omitempty"`
}

// lifetime holds times in RFC 3339 and one sentence.
type lifetime struct {
	IssuedAt  string `json:"issuedAt,omitempty"`
	NotBefore string `json:"notBefore,omitempty"`
	ExpiresAt string `json:"expiresAt,omitempty"`
	Summary   string `json:"summary"`
}

func (o *inspectOptions) run() error {
	text, err := o.input.read()
	if err != nil {
		return err
	}
	decoded, err := token.Decode(text)
	if err != nil {
		return withHint(err, copiedWhole)
	}
	if decoded.SignatureFault != "" {
		fmt.Fprintf(o.input.err, "note: no server accepts this token: %s\n", decoded.SignatureFault)
	}
	result := inspection{Header: decoded.Header, Claims: decoded.Payload}
	if decoded.Claims != nil {
		result.Lifetime = describeLifetime(decoded.Claims, o.clock.Now())
	}
	return o.output.print(o.input.out, result, result.print)
}

func describeLifetime(c *token.Claims, now time.Time) *lifetime {
	l := &lifetime{IssuedAt: timestamp(c.IssuedAt), NotBefore: timestamp(c.NotBefore), ExpiresAt: timestamp(c.Expiry)}
	switch left := c.ExpiresAt().Sub(now); {
	case c.Expiry == 0:
		l.Summary = "has no expiry"
	case left <= 0:
		l.Summary = "expired " + inWords(left) + " ago"
	case c.NotBefore > now.Unix():
		l.Summary = "not valid for another " + inWords(time.Unix(c.NotBefore, 0).Sub(now))
	default:
		l.Summary = inWords(left) + " left"
	}
	return l
}

// timestamp is empty for 0, which stands for an absent claim.
func timestamp(seconds int64) string {
	if seconds == 0 {
		return ""
	}
	return time.Unix(seconds, 0).UTC().Format(time.RFC3339)
}

func (r inspection) print(w io.Writer) error {
	header, err := indented(r.Header)
	if err != nil {
		return err
	}
	claims, err := indented(r.Claims)
	if err != nil {
		return err
	}
	text := fmt.Sprintf("NOT VERIFIED: this is what the token says, whoever wrote it.\n\nHeader\n%s\n\nClaims\n%s\n", header, claims)
	if r.Lifetime != nil {
		text += "\nLifetime\n" + r.Lifetime.text()
	}
	return write(w, text)
}

func (l *lifetime) text() string {
	text := ""
	for _, row := range []struct{ name, value string }{
		{"issued", l.IssuedAt}, {"not before", l.NotBefore}, {"expires", l.ExpiresAt}, {"summary", l.Summary},
	} {
		if row.value != "" {
			text += fmt.Sprintf("  %-10s  %s\n", row.name, row.value)
		}
	}
	return text
}
