package cli

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"lanyard.dev/internal/hint"
)

// Exit codes.
const (
	exitFailure = 1
	exitUsage   = 2
)

// codedError is an error with an exit code other than exitFailure.
type codedError struct {
	error
	code int
}

func (e *codedError) Unwrap() error { return e.error }

// usageError returns the error of a command line with a fault.
func usageError(cmd *cobra.Command, err error) error {
	return &codedError{hint.New(err, fmt.Sprintf("see %s --help", cmd.CommandPath())), exitUsage}
}

// noArgs does what cobra.NoArgs does, and returns an error of this package.
func noArgs(cmd *cobra.Command, args []string) error {
	if err := expectArgs(args, 0, ""); err != nil {
		return usageError(cmd, err)
	}
	return nil
}

// expectArgs returns an error unless there are n arguments. names describes them.
func expectArgs(args []string, n int, names string) error {
	switch {
	case len(args) < n:
		return errors.New("expected " + names)
	case len(args) > n:
		return fmt.Errorf("unexpected argument %q", args[n])
	}
	return nil
}

// panicError returns an error of one line for a panic. The value of a panic is a message or an error of the Go runtime. It cannot
// contain a token or key, because their types do not print their values.
func panicError(cause any) error {
	line, _, _ := strings.Cut(fmt.Sprint(cause), "\n")
	return hint.New(fmt.Errorf("internal error: %s", line),
		"this is a defect in lanyard: please report it with the command that led to it")
}

// exitCode is an error that sets the exit code and prints nothing. The command has printed its result, or the command of
// lanyard exec has ended with this code.
type exitCode int

func (c exitCode) Error() string { return fmt.Sprintf("exit code %d", int(c)) }

// report prints err unless it is nil, and returns the exit code.
func (s streams) report(err error) int {
	if err == nil {
		return 0
	}
	if silent := exitCode(0); errors.As(err, &silent) {
		return int(silent)
	}
	for line := range strings.SplitSeq(err.Error(), "\n") {
		fmt.Fprintf(s.err, "lanyard: %s\n", line)
	}
	if text := hint.Of(err); text != "" {
		fmt.Fprintf(s.err, "hint: %s\n", text)
	}
	if coded := (*codedError)(nil); errors.As(err, &coded) {
		return coded.code
	}
	return exitFailure
}

// flagError returns the error of a command line with a faulty flag.
func flagError(cmd *cobra.Command, err error) error {
	var unknown *pflag.NotExistError
	if !errors.As(err, &unknown) {
		return usageError(cmd, err)
	}
	typed := unknown.GetSpecifiedName()
	if letters := unknown.GetSpecifiedShortnames(); letters != "" {
		typed, _, _ = strings.Cut(letters, "=") // The user typed -data-dir=x instead of --data-dir=x.
	}
	var names []string
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		if !f.Hidden {
			names = append(names, f.Name)
		}
	})
	return suggest(usageError(cmd, err), "--", nearest(typed, names))
}

// unknownCommand returns the error of a group that has no command of this name.
func unknownCommand(cmd *cobra.Command, name string) error {
	err := usageError(cmd, fmt.Errorf("unknown command %q for %s", name, cmd.CommandPath()))
	var names []string
	for _, child := range cmd.Commands() {
		if child.IsAvailableCommand() {
			names = append(names, child.Name())
		}
	}
	return suggest(err, cmd.CommandPath()+" ", nearest(name, names))
}

// suggest replaces the hint of err by a suggestion, unless name is empty.
func suggest(err error, before, name string) error {
	if name == "" {
		return err
	}
	return &codedError{hint.New(err, "did you mean "+before+name+"?"), exitUsage}
}

// nearest returns the name that the user probably meant, or "". It prefers the name with the fewest letters changed, and
// else takes a name that is a prefix of typed or that typed is a prefix of.
func nearest(typed string, names []string) string {
	typed = strings.ToLower(typed)
	found, fewest := "", 0
	for _, name := range names {
		if n := hint.Distance(typed, name); n <= maxDistance(typed, name) && (found == "" || n < fewest) {
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

// maxDistance returns the number of changed letters up to which two names are similar.
func maxDistance(a, b string) int {
	switch n := min(len(a), len(b)); {
	case n < 3:
		return n - 1
	case n < 9:
		return 2
	}
	return 3
}
