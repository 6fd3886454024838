package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/utils/clock"

	"lanyard.dev/internal/hint"
	"lanyard.dev/internal/token"
)

const inspectHelp = `Show the content of a token: its header, its claims, and the rest of its
lifetime. The token is not verified, and anyone can write a token with any
content. To find out whether a token is genuine, use lanyard token verify.

The token is the argument. If the argument is "-" or missing, the token is read
from standard input. Prefer standard input: other users of the machine can see
arguments. The signature is never printed, so the output cannot be used as a
token.`

const inspectExamples = `  # Show a new token of the account "default"
  lanyard kubectl create token default | lanyard token inspect

  # As JSON
  lanyard kubectl create token default | lanyard token inspect -o json`

// formHint is the hint for a text that is not a token.
const formHint = "give the complete token without \"Bearer\" and quotes: three parts of letters, digits, - and _, separated by dots"

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
		Short:   "Show the content of a token, without verifying it",
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
	o.output.addFlags(cmd, formatText, formatJSON, formatYAML)
	return cmd
}

// inspection is the result of lanyard token inspect.
type inspection struct {
	Verified bool            `json:"verified"` // always false, as a warning to the reader
	Header   json.RawMessage `json:"header"`
	Claims   json.RawMessage `json:"claims"`
	Lifetime *lifetime       `json:"lifetime,omitempty"`
}

// lifetime contains times in the format of RFC 3339, and a summary for people.
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
		return hint.New(err, formHint)
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
		l.Summary = "expired " + durationText(left) + " ago"
	case c.NotBefore > now.Unix():
		l.Summary = "not valid for another " + durationText(time.Unix(c.NotBefore, 0).Sub(now))
	default:
		l.Summary = durationText(left) + " left"
	}
	return l
}

// timestamp returns "" for 0, which means that the claim is missing.
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
	text := fmt.Sprintf("NOT VERIFIED: anyone can write a token with this content.\n\nHeader\n%s\n\nClaims\n%s\n", header, claims)
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
