package cli

import (
	"io"
	"os"

	"github.com/spf13/cobra"

	"lanyard.dev/internal/process"
)

// streams are the standard streams of a command.
type streams struct {
	in  io.Reader
	out io.Writer // results
	err io.Writer // words
}

// Main runs the command that this process was started with and returns its
// exit code: 0, 2 for a command line that cannot be understood, else 1.
func Main() int {
	if code, isTrampoline := process.Trampoline(os.Args); isTrampoline {
		return code
	}
	return Run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
}

// Run is Main with the arguments, less the program's name, and the streams
// given. Some commands also read the environment.
func Run(args []string, stdin io.Reader, stdout, stderr io.Writer) (code int) {
	s := streams{in: stdin, out: stdout, err: stderr}
	defer func() {
		if cause := recover(); cause != nil {
			code = s.report(panicked(cause))
		}
	}()
	root := newRoot(s)
	root.SetArgs(given(args))
	return s.report(root.Execute())
}

// given makes no arguments an empty list: cobra takes nil for those of the
// process.
func given(args []string) []string { return append([]string{}, args...) }

const rootHelp = `Lanyard is the Kubernetes service-account system as one program. It gives
every workload a named identity, a short-lived token it never has to store,
and exactly the permissions it was granted. It speaks the Kubernetes API, so
kubectl and everything built on client-go work with it.`

// newRoot returns the whole command tree. A new command is added to
// commands, nowhere else.
func newRoot(s streams) *cobra.Command {
	root := newGroup(s, "lanyard", "The Kubernetes service-account system as one program", rootHelp)
	root.CompletionOptions.HiddenDefaultCmd = true
	root.SilenceErrors, root.SilenceUsage = true, true
	root.SetIn(s.in)
	root.SetOut(s.out)
	root.SetErr(s.err)
	root.SetUsageTemplate(usageTemplate)
	root.SetFlagErrorFunc(flagError)
	root.AddCommand(commands(s)...)
	root.SetHelpCommand(newHelp())
	return root
}

// usageTemplate is cobra's, without what does not help a reader here.
const usageTemplate = `Usage:
  {{if .HasAvailableSubCommands}}{{.CommandPath}} COMMAND{{else}}{{.UseLine}}{{end}}
{{- if .HasExample}}

Examples:
{{.Example}}
{{- end}}
{{- if .HasAvailableSubCommands}}

Commands:
{{- range .Commands}}{{if .IsAvailableCommand}}
  {{rpad .Name .NamePadding}} {{.Short}}
{{- end}}{{end}}
{{- end}}
{{- if .HasAvailableLocalFlags}}

Flags:
{{.LocalFlags.FlagUsages | trimTrailingWhitespaces}}
{{- end}}
{{- if .HasAvailableSubCommands}}

Run "{{.CommandPath}} COMMAND --help" to learn more about a command.
{{- end}}
`

// commands are lanyard's subcommands in the order of their use.
func commands(s streams) []*cobra.Command {
	return []*cobra.Command{
		newUp(s),
		newServe(s),
		newAgent(s),
		newKubectl(s),
		newExec(s),
		newToken(s),
		newAccess(s),
		newNode(s),
		newUser(s),
		newVersion(s),
	}
}

// newGroup returns a command that only holds others.
func newGroup(_ streams, name, short, long string) *cobra.Command {
	return &cobra.Command{
		Use:   name,
		Short: short,
		Long:  long,
		Args:  cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return cmd.Help()
			}
			return unknownCommand(cmd, args[0])
		},
	}
}

// newHelp is cobra's help command, which shows the help of the last command
// that it knows when it is asked for one that it does not know.
func newHelp() *cobra.Command {
	return &cobra.Command{
		Use: "help [COMMAND]", Short: "Show the help of a command", Hidden: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			found, rest, err := cmd.Root().Find(args)
			switch {
			case err != nil:
				return usageError(cmd.Root(), err)
			case len(rest) > 0 && found.HasSubCommands():
				return unknownCommand(found, rest[0])
			case found.Name() == "kubectl":
				found.SetArgs(nil)
				return found.RunE(found, append(rest, "--help"))
			}
			found.InitDefaultHelpFlag()
			return found.Help()
		},
	}
}
