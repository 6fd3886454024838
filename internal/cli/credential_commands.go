package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
	"k8s.io/utils/clock"

	"lanyard.dev/internal/hint"
)

// credentialKind is what the commands for tokens and for certificates differ in.
type credentialKind struct {
	word     string // as in "2 tokens"
	flags    func(*credentialSelector, *cobra.Command)
	argument func(*credentialSelector, string) error
	find     func(context.Context, *credentialSelector, *credentialClient, string) ([]credential, error)
}

var tokenKind = credentialKind{
	word:     "token",
	flags:    func(s *credentialSelector, cmd *cobra.Command) { s.addTokenFlags(cmd.Flags()) },
	argument: (*credentialSelector).addToken,
	find: func(ctx context.Context, s *credentialSelector, client *credentialClient, namespace string) ([]credential, error) {
		return s.findTokens(ctx, client, namespace)
	},
}

var certificateKind = credentialKind{
	word:     "certificate",
	flags:    func(s *credentialSelector, cmd *cobra.Command) { s.addCertificateFlags(cmd.Flags()) },
	argument: (*credentialSelector).addCertificate,
	find: func(ctx context.Context, s *credentialSelector, client *credentialClient, _ string) ([]credential, error) {
		return s.findCertificates(ctx, client)
	},
}

// credentialOptions are those of a command that selects credentials.
type credentialOptions struct {
	streams
	kind       credentialKind
	connection connection
	selector   credentialSelector
	output     outputOptions

	client    *credentialClient
	namespace string // of the kubeconfig
	// input is whether standard input was read for the argument "-".
	input bool
}

// maxCredentialInput is the limit for standard input, in bytes. It is larger than that of a token or a certificate.
const maxCredentialInput = 64 << 10

// parse reads the arguments and flags.
func (o *credentialOptions) parse(args []string) error {
	errs := []error{o.selector.parse(), o.output.validate()}
	for _, arg := range args {
		if arg == "-" {
			var err error
			if arg, err = o.read(); err != nil {
				return err
			}
		}
		errs = append(errs, o.kind.argument(&o.selector, arg))
	}
	return errors.Join(errs...)
}

func (o *credentialOptions) read() (string, error) {
	if o.input {
		return "", errors.New("standard input is given twice")
	}
	o.input = true
	data, err := io.ReadAll(io.LimitReader(o.in, maxCredentialInput))
	if err != nil {
		return "", fmt.Errorf("read standard input: %w", err)
	}
	return string(data), nil
}

// find returns the selected credentials, and if the user wants them, all that was requested with them.
func (o *credentialOptions) find(ctx context.Context) (selected, children []credential, err error) {
	if o.client, o.namespace, err = newCredentialClient(&o.connection, o.err); err != nil {
		return nil, nil, err
	}
	if selected, err = o.kind.find(ctx, &o.selector, o.client, o.namespace); err != nil {
		return nil, nil, err
	}
	sortCredentials(selected)
	if o.selector.withChildren {
		children, err = descendants(ctx, o.client, selected)
		sortCredentials(children)
	}
	return selected, children, err
}

// newCredentialList completes cmd, a command that lists credentials of one kind.
func newCredentialList(s streams, cmd *cobra.Command, kind credentialKind) *cobra.Command {
	o := &credentialOptions{streams: s, kind: kind, selector: credentialSelector{clock: clock.RealClock{}}}
	cmd.Args = cobra.ArbitraryArgs
	cmd.RunE = checkAndRun(o.parse, func(ctx context.Context) error {
		selected, children, err := o.find(ctx)
		if err != nil {
			return err
		}
		all := append(selected, children...)
		if len(all) == 0 && (o.output.format == formatTable || o.output.format == formatWide) {
			fmt.Fprintf(o.err, "no %s found\n", kind.word)
			return nil
		}
		return printCredentials(&o.output, o.out, all, o.selector.clock.Now())
	})
	kind.flags(&o.selector, cmd)
	o.output.addFlags(cmd, credentialFormats...)
	o.connection.addFlags(cmd.Flags())
	return cmd
}

// revokeOptions are those of a command that revokes credentials.
type revokeOptions struct {
	credentialOptions
	reason string
	yes    bool
	dryRun bool
}

// newCredentialRevoke completes cmd, a command that revokes credentials of one kind.
func newCredentialRevoke(s streams, cmd *cobra.Command, kind credentialKind) *cobra.Command {
	o := &revokeOptions{credentialOptions: credentialOptions{streams: s, kind: kind, selector: credentialSelector{clock: clock.RealClock{}}}}
	o.output = outputOptions{format: formatTable, formats: credentialFormats}
	cmd.Args = cobra.ArbitraryArgs
	cmd.RunE = checkAndRun(o.parse, o.run)
	f := cmd.Flags()
	kind.flags(&o.selector, cmd)
	f.StringVar(&o.reason, "reason", "", "why they are revoked, for the audit log of the server")
	f.BoolVar(&o.yes, "yes", false, "do not ask")
	f.BoolVar(&o.dryRun, "dry-run", false, "show what would end, and revoke nothing")
	o.connection.addFlags(f)
	return cmd
}

// maxReason is the limit of the server for a reason, in bytes.
const maxReason = 1024

func (o *revokeOptions) parse(args []string) error {
	if err := o.credentialOptions.parse(args); err != nil {
		return err
	}
	if len(o.reason) > maxReason {
		return fmt.Errorf("--reason must have at most %d bytes", maxReason)
	}
	if !o.selector.selects() {
		return fmt.Errorf("say which %ss to revoke: give an ID, or a flag that selects them", o.kind.word)
	}
	return nil
}

func (o *revokeOptions) run(ctx context.Context) error {
	selected, children, err := o.find(ctx)
	if err != nil {
		return err
	}
	all := append(selected, children...)
	if len(all) == 0 {
		fmt.Fprintf(o.err, "no %s found, nothing revoked\n", o.kind.word)
		return nil
	}
	if err := printCredentialTables(o.err, all, false, o.selector.clock.Now()); err != nil {
		return err
	}
	if !o.dryRun && !o.yes {
		if err := confirmRevocation(o.streams, o.input, fmt.Sprintf("Revoke %s? [y/N] ", countOf(all))); err != nil {
			return err
		}
	}
	return o.revoke(ctx, all)
}

// revoke ends the credentials, and then what was requested with them since they were listed: nothing can be requested with them
// any more.
func (o *revokeOptions) revoke(ctx context.Context, all []credential) error {
	revoked := 0
	for pending := all; len(pending) > 0; {
		n, err := o.client.revokeAll(ctx, pending, o.reason, o.dryRun)
		if revoked += n; err != nil {
			return hint.New(fmt.Errorf("%d revoked, the others not:\n%w", revoked, err), "run the command again")
		}
		if o.dryRun || !o.selector.withChildren {
			break
		}
		late, err := descendants(ctx, o.client, all)
		if err != nil {
			return err
		}
		pending, all = late, append(all, late...)
	}
	if o.dryRun {
		return write(o.out, fmt.Sprintf("%s would be revoked (dry run)\n", countOf(all)))
	}
	return write(o.out, fmt.Sprintf("%s revoked\n", countOf(all)))
}

// countOf returns the numbers of tokens and certificates, as in "2 tokens and 1 certificate".
func countOf(all []credential) string {
	tokens := 0
	for _, c := range all {
		if c.token != nil {
			tokens++
		}
	}
	var parts []string
	for _, part := range []struct {
		n    int
		word string
	}{{tokens, "token"}, {len(all) - tokens, "certificate"}} {
		if part.n > 0 {
			parts = append(parts, plural(int64(part.n), part.word))
		}
	}
	return strings.Join(parts, " and ")
}

// confirmRevocation asks a question on the terminal, and returns an error unless the user agrees. inputRead is whether standard
// input was read for an argument, so that it has no answer.
func confirmRevocation(s streams, inputRead bool, question string) error {
	if inputRead || !isTerminal(s.in) {
		return &codedError{hint.New(errors.New("nothing is revoked, since nobody can be asked"), "give --yes to revoke them"), exitUsage}
	}
	fmt.Fprint(s.err, question)
	line, err := bufio.NewReader(io.LimitReader(s.in, 1024)).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("read the answer: %w", err)
	}
	if answer := strings.ToLower(strings.TrimSpace(line)); answer != "y" && answer != "yes" {
		return errors.New("nothing is revoked")
	}
	return nil
}
