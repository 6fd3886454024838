package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	apiversion "k8s.io/apimachinery/pkg/version"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	"k8s.io/cli-runtime/pkg/genericiooptions"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	basecli "k8s.io/component-base/cli"
	baseversion "k8s.io/component-base/version"
	kubectl "k8s.io/kubectl/pkg/cmd"
	kubectlutil "k8s.io/kubectl/pkg/cmd/util"
	kubectlversion "k8s.io/kubectl/pkg/cmd/version"
	"sigs.k8s.io/yaml"

	_ "lanyard.dev/internal/cli/translations" // initialized before the packages of kubectl
	"lanyard.dev/internal/datadir"
	"lanyard.dev/internal/hint"
	"lanyard.dev/internal/version"
)

const (
	// These limits of discovery requests are the same as in Kubernetes' kubectl.
	discoveryQPS   = 50
	discoveryBurst = 300

	kubeconfigEnv = clientcmd.RecommendedConfigPathEnvVar
)

type kubectlOptions struct {
	streams
	args []string

	// exit ends the process with kubectl's exit code.
	exit func(code int)
	// notFound is the reason if an authority on this machine was looked for and not found.
	notFound error
}

// newKubectl passes all arguments, flags and --help included, to kubectl itself. The command has no help of its own.
func newKubectl(s streams) *cobra.Command {
	return &cobra.Command{
		Use:                "kubectl ARGUMENT...",
		Short:              "Run kubectl, with the authority on this machine if no kubeconfig is named",
		DisableFlagParsing: true,
		RunE: func(_ *cobra.Command, args []string) error {
			o := &kubectlOptions{streams: s, args: args, exit: exit}
			if err := o.complete(); err != nil {
				return err
			}
			o.run()
			return nil
		},
	}
}

// complete selects the authority on this machine unless the user names a kubeconfig. It sets an environment variable, because a
// flag would not reach all of kubectl, such as "kubectl config".
func (o *kubectlOptions) complete() error {
	if os.Getenv(kubeconfigEnv) != "" || namesKubeconfig(o.args) {
		return nil
	}
	if runsUnderExec() {
		return os.Setenv(kubeconfigEnv, noKubeconfig)
	}
	running, err := datadir.FindOne()
	switch {
	case err == nil:
		if err := os.Setenv(kubeconfigEnv, running.Kubeconfig()); err != nil {
			return fmt.Errorf("set %s: %w", kubeconfigEnv, err)
		}
	case errors.Is(err, datadir.ErrNoneRunning):
		o.notFound = err
	case !needsNoServer(o.args):
		return err
	}
	return nil
}

// namesKubeconfig reports whether the arguments contain --kubeconfig where kubectl would parse it.
func namesKubeconfig(args []string) bool {
	for _, arg := range args {
		if arg == "--" {
			return false
		}
		if arg == "--kubeconfig" || strings.HasPrefix(arg, "--kubeconfig=") {
			return true
		}
	}
	return false
}

// needsNoServer reports whether the command makes no request.
func needsNoServer(args []string) bool {
	if len(args) == 0 || slices.Contains(args, "--help") || slices.Contains(args, "-h") {
		return true
	}
	return slices.Contains([]string{"help", "options", "completion", "kustomize", cobra.ShellCompRequestCmd, cobra.ShellCompNoDescRequestCmd}, args[0])
}

// run does what kubectl's main function does.
func (o *kubectlOptions) run() {
	kubectlutil.BehaviorOnFatal(o.fatal)
	if err := basecli.RunNoErrOutput(o.command()); err != nil {
		kubectlutil.CheckErr(err)
	}
}

// fatal prints kubectl's error and ends the process. kubectl calls it in any goroutine.
func (o *kubectlOptions) fatal(message string, code int) {
	next := ""
	if strings.Contains(message, genericclioptions.ErrEmptyConfig.Error()) {
		err := noServer(o.notFound)
		message, next = "error: "+err.Error(), hint.Of(err)
	}
	if message != "" {
		fmt.Fprintln(o.err, strings.TrimSuffix(message, "\n"))
	}
	if next != "" {
		fmt.Fprintf(o.err, "hint: %s\n", next)
	}
	o.exit(code)
}

// disableLocalhost keeps kubectl from http://localhost:8080, to which it makes several requests if no server is configured.
// Instead it ends with genericclioptions.ErrEmptyConfig.
func disableLocalhost() {
	if os.Getenv("KUBERNETES_MASTER") == "" {
		clientcmd.ClusterDefaults.Server = ""
	}
}

// setUserAgent sets the user agent, so that the server's logs name this program.
func setUserAgent(config *rest.Config) *rest.Config {
	config.UserAgent = version.Current().UserAgent()
	return config
}

// command returns kubectl's command tree without plugins, so that "lanyard kubectl" runs no other program.
func (o *kubectlOptions) command() *cobra.Command {
	disableLocalhost()
	io := genericiooptions.IOStreams{In: o.in, Out: o.out, ErrOut: o.err}
	flags := genericclioptions.NewConfigFlags(true).WithDeprecatedPasswordFlag().
		WithDiscoveryBurst(discoveryBurst).WithDiscoveryQPS(discoveryQPS).WithWarningPrinter(io).
		WithWrapConfigFn(setUserAgent)
	root := kubectl.NewDefaultKubectlCommandWithArgs(kubectl.KubectlOptions{
		Arguments:   append([]string{"kubectl"}, o.args...),
		ConfigFlags: flags,
		IOStreams:   io,
	})
	// Usage texts must show commands that the reader can run.
	root.Annotations = map[string]string{cobra.CommandDisplayNameAnnotation: "lanyard kubectl"}
	root.SetArgs(notNil(o.args))
	root.SetIn(o.in)
	root.SetOut(o.out)
	root.SetErr(o.err)
	replaceVersion(root, flags, io)
	return root
}

// replaceVersion replaces the command "version" in kubectl's tree. kubectl takes its version from linker flags. In a build
// without them it would print v0.0.0-master and warn that the server has another version.
func replaceVersion(root *cobra.Command, flags *genericclioptions.ConfigFlags, io genericiooptions.IOStreams) {
	for _, cmd := range root.Commands() {
		if cmd.Name() != "version" {
			continue
		}
		o := &kubectlVersionOptions{flags: flags, io: io}
		cmd.Args = cobra.NoArgs
		cmd.Run = func(cmd *cobra.Command, _ []string) {
			// The command keeps kubectl's flags.
			o.clientOnly = cmd.Flag("client").Value.String() == "true"
			o.format = cmd.Flag("output").Value.String()
			kubectlutil.CheckErr(o.validate())
			kubectlutil.CheckErr(o.run())
		}
	}
}

type kubectlVersionOptions struct {
	flags *genericclioptions.ConfigFlags
	io    genericiooptions.IOStreams

	clientOnly bool
	format     string
}

func (o *kubectlVersionOptions) validate() error {
	if o.format != "" && o.format != formatYAML && o.format != formatJSON {
		return errors.New("--output must be 'yaml' or 'json'")
	}
	return nil
}

// run prints the client's version even if the server does not answer.
func (o *kubectlVersionOptions) run() error {
	client := clientVersion()
	info := kubectlversion.Version{ClientVersion: &client}
	info.KustomizeVersion, _ = kubectlversion.GetKustomizeModVersion()
	var serverErr error
	if !o.clientOnly {
		info.ServerVersion, serverErr = o.serverVersion()
	}
	if err := o.print(&info); err != nil {
		return err
	}
	return serverErr
}

// serverVersion returns nil without an error if no server is configured.
func (o *kubectlVersionOptions) serverVersion() (*apiversion.Info, error) {
	client, err := o.flags.ToDiscoveryClient()
	if clientcmd.IsEmptyConfig(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	client.Invalidate()
	return client.ServerVersion()
}

// clientVersion returns the version that the linker set, else the version of the Kubernetes libraries in this program.
func clientVersion() apiversion.Info {
	info := baseversion.Get()
	if !strings.HasPrefix(info.GitVersion, "v0.0.0") {
		return info
	}
	build := version.Current()
	major, minor := build.MajorMinor()
	return apiversion.Info{
		Major: major, Minor: minor, GitVersion: build.Kubernetes,
		GitCommit: build.Commit, GitTreeState: build.TreeState, BuildDate: build.CommitDate,
		GoVersion: build.Go, Compiler: runtime.Compiler, Platform: build.Platform,
	}
}

func (o *kubectlVersionOptions) print(info *kubectlversion.Version) error {
	var text []byte
	var err error
	switch o.format {
	case formatYAML:
		text, err = yaml.Marshal(info)
	case formatJSON:
		text, err = json.MarshalIndent(info, "", "  ")
	default:
		text = fmt.Appendf(nil, "Client Version: %s\nKustomize Version: %s", info.ClientVersion.GitVersion, info.KustomizeVersion)
		if info.ServerVersion != nil {
			text = fmt.Appendf(text, "\nServer Version: %s", info.ServerVersion.GitVersion)
		}
	}
	if err != nil {
		return fmt.Errorf("encode the versions: %w", err)
	}
	_, err = fmt.Fprintln(o.io.Out, string(text))
	return err
}
