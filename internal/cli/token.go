package cli

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"lanyard.dev/internal/hint"
	"lanyard.dev/internal/token"
)

const tokenHelp = `List the tokens that a server has issued, and revoke them. Show what is in a
token, and verify it, without a server. No command prints the signature of a
token.`

func newToken(s streams) *cobra.Command {
	return newGroup("token", "List, revoke, read and verify service-account tokens", tokenHelp,
		newTokenList(s), newTokenRevoke(s), newTokenInspect(s), newTokenVerify(s))
}

// tokenInput reads the token of a command from the argument or from standard input.
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
	case isTerminal(i.in):
		next := "give it as the argument, or pipe it, as in: lanyard kubectl create token default | " + cmd.CommandPath()
		return &codedError{hint.New(errors.New("no token given"), next), exitUsage}
	default:
		i.arg = "-"
	}
	return nil
}

// read returns the token without surrounding white space.
func (i *tokenInput) read() (string, error) {
	if i.arg != "-" {
		return strings.TrimSpace(i.arg), nil
	}
	// The limit of token.MaxSize does not include white space around the token.
	data, err := io.ReadAll(io.LimitReader(i.in, 2*token.MaxSize))
	if err != nil {
		return "", fmt.Errorf("read the token from standard input: %w", err)
	}
	text := strings.TrimSpace(string(data))
	if text == "" {
		return "", hint.New(errors.New("standard input contains no token"), "pipe a token, or give it as the argument")
	}
	return text, nil
}
