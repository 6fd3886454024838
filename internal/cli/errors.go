package cli

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"lanyard.dev/internal/hint"
	"lanyard.dev/internal/spelling"
)

const (
	exitFailure = 1
	exitUsage   = 2
)

// hinted is what an error says about the reader's next step; the packages
// below cli have errors of this kind.
type hinted interface{ Hint() string }

// cliError is an error with a next step and an exit code.
type cliError struct {
	err  error
	hint string
	code int
}

func (e *cliError) Error() string { return e.err.Error() }
func (e *cliError) Unwrap() error { return e.err }
func (e *cliError) Hint() string  { return e.hint }

// withHint adds the reader's next step to err.
func withHint(err error, hint string) error {
	return &cliError{err: err, hint: hint, code: exitFailure}
}

// usageError is a command line that cannot be understood.
func usageError(cmd *cobra.Command, err error) error {
	return &cliError{err: err, hint: fmt.Sprintf("see %s --help", cmd.CommandPath()), code: exitUsage}
}

// noArgs is cobra.NoArgs in this package's words.
func noArgs(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usageError(cmd, fmt.Errorf("unexpected argument %q", args[0]))
	}
	return nil
}

// panicked turns a panic into one line. The value of a panic is a message or
// an error of the Go runtime; what such values hold is never a token or key,
// whose types hide themselves.
func panicked(cause any) error {
	line, _, _ := strings.Cut(fmt.Sprint(cause), "\n")
	return withHint(fmt.Errorf("internal error: %s", line),
		"this is a defect in lanyard: please report it with the command that led to it")
}

// verdict is an exit code that is a result by itself: nothing went wrong, and
// all has been said.
type verdict int

func (v verdict) Error() string { return fmt.Sprintf("exit code %d", int(v)) }

// report prints err, if it is one, and returns the exit code.
func (s streams) report(err error) int {
	if err == nil {
		return 0
	}
	if said := verdict(0); errors.As(err, &said) {
		return int(said)
	}
	for line := range strings.SplitSeq(err.Error(), "\n") {
		fmt.Fprintf(s.err, "lanyard: %s\n", line)
	}
	if hint := hintOf(err); hint != "" {
		fmt.Fprintf(s.err, "hint: %s\n", hint)
	}
	if coded := (*cliError)(nil); errors.As(err, &coded) {
		return coded.code
	}
	return exitFailure
}

func hintOf(err error) string {
	var h hinted
	if errors.As(err, &h) {
		return h.Hint()
	}
	return hint.Of(err)
}

// flagError is what a command line with a bad flag ends with, at every command.
func flagError(cmd *cobra.Command, err error) error {
	var unknown *pflag.NotExistError
	if !errors.As(err, &unknown) {
		return usageError(cmd, err)
	}
	typed := unknown.GetSpecifiedName()
	if letters := unknown.GetSpecifiedShortnames(); letters != "" {
		typed, _, _ = strings.Cut(letters, "=") // -data-dir=x for --data-dir=x
	}
	var names []string
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		if !f.Hidden {
			names = append(names, f.Name)
		}
	})
	return didYouMean(usageError(cmd, err), "--", nearest(typed, names))
}

// unknownCommand is what a group is told that has no such command.
func unknownCommand(cmd *cobra.Command, name string) error {
	err := usageError(cmd, fmt.Errorf("unknown command %q for %s", name, cmd.CommandPath()))
	var names []string
	for _, child := range cmd.Commands() {
		if child.IsAvailableCommand() {
			names = append(names, child.Name())
		}
	}
	return didYouMean(err, cmd.CommandPath()+" ", nearest(name, names))
}

// didYouMean changes the hint of err if there is a name to suggest.
func didYouMean(err error, before, name string) error {
	if name == "" {
		return err
	}
	return &cliError{err: err, hint: "did you mean " + before + name + "?", code: exitUsage}
}

// nearest returns the name that was most likely meant, or "" if none is near:
// one that takes the fewest changes of a letter, else one that typed begins
// with or that begins with typed.
func nearest(typed string, names []string) string {
	typed = strings.ToLower(typed)
	found, fewest := "", 0
	for _, name := range names {
		if n := spelling.Distance(typed, name); n <= tolerance(typed, name) && (found == "" || n < fewest) {
			found, fewest = name, n
		}
	}
	for _, name := range names {
		if found == "" && min(len(typed), len(name)) >= 3 && (strings.HasPrefix(typed, name) || strings.HasPrefix(name, typed)) {
			found = name
		}
	}
	return found
}

// tolerance is how many changes may lie between two names.
func tolerance(a, b string) int {
	switch n := min(len(a), len(b)); {
	case n < 3:
		return n - 1
	case n < 9:
		return 2
	}
	return 3
}
