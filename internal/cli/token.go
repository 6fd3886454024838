package cli

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"lanyard.dev/internal/token"
)

const tokenHelp = `Look at tokens: what they say, and whether it is true. Neither command talks to
the API as anybody, changes anything, or prints a token's signature.`

func newToken(s streams) *cobra.Command {
	group := newGroup(s, "token", "Read and verify service-account tokens", tokenHelp)
	group.AddCommand(newTokenInspect(s), newTokenVerify(s))
	return group
}

// tokenInput is where a command takes its one token from.
type tokenInput struct {
	streams
	arg string
}

func (i *tokenInput) complete(cmd *cobra.Command, args []string) error {
	switch {
	case len(args) > 1:
		return usageError(cmd, errors.New("more than one token given"))
	case len(args) == 1:
		i.arg = args[0]
	case onTerminal(i.in):
		return &cliError{
			err:  errors.New("no token given"),
			hint: "name it as the argument, or pipe it, as in: lanyard kubectl create token default | " + cmd.CommandPath(),
			code: exitUsage,
		}
	default:
		i.arg = "-"
	}
	return nil
}

func onTerminal(r io.Reader) bool {
	f, ok := r.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

func writesToTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// read returns the token without surrounding white space.
func (i *tokenInput) read() (string, error) {
	if i.arg != "-" {
		return strings.TrimSpace(i.arg), nil
	}
	// White space around the token is not part of its size.
	data, err := io.ReadAll(io.LimitReader(i.in, 2*token.MaxSize))
	if err != nil {
		return "", fmt.Errorf("read the token from standard input: %w", err)
	}
	text := strings.TrimSpace(string(data))
	if text == "" {
		return "", withHint(errors.New("standard input holds no token"), "pipe a token, or name it as the argument")
	}
	return text, nil
}
