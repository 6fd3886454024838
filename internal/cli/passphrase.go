package cli

import (
	"context"
	"errors"
	"fmt"
	"os"

	"golang.org/x/term"

	"lanyard.dev/internal/hint"
)

// errNoTerminal means that nobody can be asked for a passphrase.
var errNoTerminal = errors.New("there is no terminal to ask for a passphrase")

// askPassphrase asks for a passphrase on the terminal of this process, without showing what is typed.
func (s streams) askPassphrase(ctx context.Context, prompt string) (string, error) {
	terminal, end, err := s.terminal()
	if err != nil {
		return "", err
	}
	defer end()
	// An interrupt ends the read only for its caller, which then restores the terminal.
	before, err := term.GetState(int(terminal.Fd()))
	if err != nil {
		return "", fmt.Errorf("ask for a passphrase: %w", err)
	}
	type answer struct {
		text []byte
		err  error
	}
	answers := make(chan answer, 1)
	fmt.Fprint(s.err, prompt)
	go func() {
		text, err := term.ReadPassword(int(terminal.Fd()))
		answers <- answer{text, err}
	}()
	defer fmt.Fprintln(s.err)
	select {
	case a := <-answers:
		if a.err != nil {
			return "", fmt.Errorf("read the passphrase: %w", a.err)
		}
		return string(a.text), nil
	case <-ctx.Done():
		_ = term.Restore(int(terminal.Fd()), before)
		return "", context.Cause(ctx)
	}
}

// terminal returns the terminal that controls this process, or standard input if it is a terminal. Call end when it is no longer
// used.
func (s streams) terminal() (terminal *os.File, end func(), err error) {
	if f, err := os.OpenFile("/dev/tty", os.O_RDWR, 0); err == nil {
		return f, func() { _ = f.Close() }, nil
	}
	if isTerminal(s.in) {
		return s.in.(*os.File), func() {}, nil
	}
	return nil, nil, hint.New(errNoTerminal, "name a file that has it with --passphrase-file")
}

// newPassphrase asks twice.
func (s streams) newPassphrase(ctx context.Context) (string, error) {
	first, err := s.askPassphrase(ctx, "Passphrase for the backup: ")
	if err != nil {
		return "", err
	}
	if first == "" {
		return "", errors.New("the passphrase is empty")
	}
	second, err := s.askPassphrase(ctx, "Repeat the passphrase: ")
	if err != nil {
		return "", err
	}
	if first != second {
		return "", errors.New("the passphrases differ")
	}
	return first, nil
}
