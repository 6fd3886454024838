package cli

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"lanyard.dev/internal/spelling"
)

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
