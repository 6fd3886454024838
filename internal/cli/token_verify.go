package cli

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
	"k8s.io/utils/clock"

	"lanyard.dev/internal/files"
	"lanyard.dev/internal/hint"
	"lanyard.dev/internal/pki"
	"lanyard.dev/internal/signingkey"
	"lanyard.dev/internal/token"
)

const verifyHelp = `Verify a token as a service does that has only the public keys of the issuer.
The command verifies the signature and the times, the issuer if --issuer is
given, and the audience if --audience is given. Give both: otherwise a token for
another service would be accepted too. The keys come from the issuer, by OpenID
Connect discovery over HTTPS, or from a file with its JSON Web Key Set.

Only the issuer knows whether the account of the token, and the objects to which
the token is bound, still exist. A service that needs to know this creates a
TokenReview.

The token is the argument. If the argument is "-" or missing, the token is read
from standard input. Exit code 1 means that the token must not be accepted, or
that the keys could not be read; standard error gives the reason.`

const verifyExamples = `  # With the keys of the authority on this machine, saved to a file
  lanyard kubectl get --raw /openid/v1/jwks > jwks.json
  lanyard kubectl create token default --audience vault | lanyard token verify --jwks jwks.json --issuer https://127.0.0.1:6443 --audience vault

  # With the keys that an issuer publishes
  lanyard token verify --issuer https://issuer.example --audience vault - < token.txt`

type verifyOptions struct {
	input  tokenInput
	output outputOptions
	clock  clock.PassiveClock

	issuer    string
	jwksFile  string
	audiences []string
	caFile    string
}

func newTokenVerify(s streams) *cobra.Command {
	return newTokenVerifyAt(s, clock.RealClock{})
}

func newTokenVerifyAt(s streams, c clock.PassiveClock) *cobra.Command {
	o := &verifyOptions{input: tokenInput{streams: s}, clock: c}
	cmd := &cobra.Command{
		Use:     "verify [--issuer URL] [--jwks FILE] [--audience A] [TOKEN|-]",
		Short:   "Verify a token with its issuer's public keys",
		Long:    verifyHelp,
		Example: verifyExamples,

		DisableFlagsInUseLine: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := o.input.complete(cmd, args); err != nil {
				return err
			}
			return checkAndRun(o.validate, o.run)(cmd, args)
		},
	}
	o.addFlags(cmd)
	return cmd
}

func (o *verifyOptions) addFlags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&o.issuer, "issuer", "", "required issuer of the token; its keys are fetched from there unless --jwks is given")
	f.StringVar(&o.jwksFile, "jwks", "", "file with the issuer's JSON Web Key Set")
	f.StringArrayVar(&o.audiences, "audience", nil, "accepted audience of the token; may be repeated")
	f.StringVar(&o.caFile, "certificate-authority", "", "file with the CA certificates that are trusted when keys are fetched, instead of the CA certificates of the system")
	o.output.addFlags(cmd, formatText, formatJSON, formatYAML)
}

func (o *verifyOptions) validate([]string) error {
	var faults []error
	if o.issuer == "" && o.jwksFile == "" {
		faults = append(faults, errors.New("give the issuer with --issuer or its keys with --jwks"))
	}
	if o.caFile != "" && o.jwksFile != "" {
		faults = append(faults, errors.New("--certificate-authority has no effect with --jwks, which names a file"))
	}
	if o.issuer != "" && o.jwksFile == "" {
		faults = append(faults, validateHTTPS("--issuer", o.issuer))
	}
	for _, audience := range o.audiences {
		if audience == "" {
			faults = append(faults, errors.New("--audience must not be empty"))
		}
	}
	return errors.Join(append(faults, o.output.validate())...)
}

func (o *verifyOptions) run(ctx context.Context) error {
	text, err := o.input.read()
	if err != nil {
		return err
	}
	keys, err := o.keys(ctx)
	if err != nil {
		return err
	}
	claims, err := token.VerifyOffline(text, keys, token.Expected{Issuer: o.issuer, Audiences: o.audiences, Clock: o.clock})
	if err != nil {
		return explainRefusal(err)
	}
	decoded, err := token.Decode(text)
	if err != nil {
		return err
	}
	checked, unchecked := o.checked()
	result := verification{
		Verified: true, Checked: checked, Header: decoded.Header, Claims: decoded.Payload, Lifetime: describeLifetime(claims, o.clock.Now()),
	}
	for _, claim := range unchecked {
		fmt.Fprintf(o.input.err, "note: the %s was not verified: give it with --%s\n", claim, claim)
	}
	return o.output.print(o.input.out, result, func(w io.Writer) error { return write(w, result.describe(claims)) })
}

// verification is the result of lanyard token verify.
type verification struct {
	Verified bool            `json:"verified"` // always true; Checked lists what was verified
	Checked  []string        `json:"checked"`
	Header   json.RawMessage `json:"header"`
	Claims   json.RawMessage `json:"claims"`
	Lifetime *lifetime       `json:"lifetime"`
}

// checked returns what the command verifies, and what it does not verify because no flag gives the expected value.
func (o *verifyOptions) checked() (checked, unchecked []string) {
	checked = []string{"signature", "times"}
	for _, claim := range []struct {
		name  string
		given bool
	}{{"issuer", o.issuer != ""}, {"audience", len(o.audiences) > 0}} {
		if claim.given {
			checked = append(checked, claim.name)
		} else {
			unchecked = append(unchecked, claim.name)
		}
	}
	return checked, unchecked
}

func (v *verification) describe(c *token.Claims) string {
	rows := []struct{ name, value string }{
		{"subject", c.Subject}, {"issuer", c.Issuer}, {"audience", strings.Join(c.Audience, ", ")}, {"expires", v.Lifetime.ExpiresAt + ", " + v.Lifetime.Summary},
	}
	last := len(v.Checked) - 1
	text := fmt.Sprintf("verified: %s and %s\n", strings.Join(v.Checked[:last], ", "), v.Checked[last])
	for _, row := range rows {
		text += printable(fmt.Appendf(nil, "  %-8s  %s\n", row.name, strings.ReplaceAll(row.value, "\n", `\n`)))
	}
	return text
}

// keys reads the issuer's keys from a file, or fetches them from the issuer.
func (o *verifyOptions) keys(ctx context.Context) (*signingkey.Set, error) {
	if o.jwksFile != "" {
		return readJWKS(o.jwksFile)
	}
	roots, err := readRoots(o.caFile)
	if err != nil {
		return nil, err
	}
	return newDiscovery(roots).keys(ctx, o.issuer)
}

func readJWKS(path string) (*signingkey.Set, error) {
	data, err := files.Read(path, maxDocument)
	if err != nil {
		return nil, fmt.Errorf("read the keys: %w", err)
	}
	keys, err := signingkey.ParseJWKS(data)
	if err != nil {
		return nil, hint.New(fmt.Errorf("%s: %w", path, err), "save the issuer's keys with: lanyard kubectl get --raw /openid/v1/jwks")
	}
	return keys, nil
}

// readRoots returns the certificates in a file. Without a file it returns nil, which selects the certificates of the system.
func readRoots(path string) (*x509.CertPool, error) {
	if path == "" {
		return nil, nil
	}
	roots, err := pki.ReadRoots(path)
	if err != nil {
		return nil, fmt.Errorf("read the CA certificates: %w", err)
	}
	return roots, nil
}

// explainRefusal adds a hint with the usual cause of the error.
func explainRefusal(err error) error {
	next := ""
	switch {
	case errors.Is(err, token.ErrExpired):
		next = "request a new token"
	case errors.Is(err, token.ErrNotYetValid):
		next = "compare this machine's clock with the issuer's"
	case errors.Is(err, token.ErrUnknownKey), errors.Is(err, token.ErrBadSignature):
		next = "fetch the issuer's keys again; if it still fails, the token is not from this issuer"
	case errors.Is(err, token.ErrAudience):
		next = "request a token for this audience: kubectl create token NAME --audience A"
	case errors.Is(err, token.ErrNotJWT):
		next = formHint
	case errors.Is(err, token.ErrForeignIssuer):
		next = "show its issuer with lanyard token inspect"
	default:
		next = "show its content with lanyard token inspect"
	}
	return hint.New(fmt.Errorf("token is not valid: %w", err), next)
}
