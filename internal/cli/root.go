package cli

import (
	"context"
	"io"
	"os"

	"github.com/spf13/cobra"

	"lanyard.dev/internal/process"
)

// streams are the standard streams of a command.
type streams struct {
	in  io.Reader
	out io.Writer // results
	err io.Writer // messages
}

// Main runs the command line of this process and returns its exit code: 0 for success, 2 for a faulty command line, 1 for other
// failures. The commands exec and kubectl have exit codes of their own.
func Main() int {
	if code, isTrampoline := process.Trampoline(os.Args); isTrampoline {
		return code
	}
	return Run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
}

// Run does what Main does, with the given arguments, without the program's name, and streams. Some commands also read the
// environment.
func Run(args []string, stdin io.Reader, stdout, stderr io.Writer) (code int) {
	s := streams{in: stdin, out: stdout, err: stderr}
	defer func() {
		if cause := recover(); cause != nil {
			code = s.report(panicError(cause))
		}
	}()
	root := newRoot(s)
	root.SetArgs(notNil(args))
	return s.report(root.Execute())
}

// notNil returns a copy of args that is not nil. For nil, cobra takes the arguments of the process.
func notNil(args []string) []string { return append([]string{}, args...) }

const rootHelp = `Lanyard is the Kubernetes service-account system as one program. It gives
every workload a named identity, a short-lived token it never has to store,
and exactly the permissions it was granted. It speaks the Kubernetes API, so
kubectl and everything built on client-go work with it.`

// newRoot returns the whole command tree. Add a new command to commands.
func newRoot(s streams) *cobra.Command {
	root := newGroup("lanyard", "The Kubernetes service-account system as one program", rootHelp, commands(s)...)
	root.CompletionOptions.HiddenDefaultCmd = true
	root.SilenceErrors, root.SilenceUsage = true, true
	root.SetIn(s.in)
	root.SetOut(s.out)
	root.SetErr(s.err)
	root.SetUsageTemplate(usageTemplate)
	root.SetFlagErrorFunc(flagError)
	root.SetHelpCommand(newHelp())
	return root
}

// usageTemplate is a shorter form of cobra's.
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

// commands returns the commands of lanyard.
func commands(s streams) []*cobra.Command {
	return []*cobra.Command{
		newUp(s),
		newServe(s),
		newAgent(s),
		newKubectl(s),
		newExec(s),
		newToken(s),
		newCertificate(s),
		newKey(s),
		newAccess(s),
		newNode(s),
		newUser(s),
		newBackup(s),
		newRestore(s),
		newVersion(s),
	}
}

// newGroup returns a command that only contains others.
func newGroup(name, short, long string, children ...*cobra.Command) *cobra.Command {
	group := &cobra.Command{
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
	group.AddCommand(children...)
	return group
}

// checkAndRun returns the function that a command runs. An error of check means that the command line has a fault.
func checkAndRun(check func(args []string) error, run func(context.Context) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		if err := check(args); err != nil {
			return usageError(cmd, err)
		}
		return run(cmd.Context())
	}
}

// newHelp returns cobra's help command with one difference: for an unknown command, cobra would show the help of its group.
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
