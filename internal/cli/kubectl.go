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

	_ "lanyard.dev/internal/cli/translations" // before kubectl loads them
	"lanyard.dev/internal/datadir"
	"lanyard.dev/internal/version"
)

const (
	// kubectl asks the server what it serves at this pace; these are the
	// figures of the kubectl that Kubernetes ships.
	discoveryQPS   = 50
	discoveryBurst = 300

	kubeconfigEnv = clientcmd.RecommendedConfigPathEnvVar
)

type kubectlOptions struct {
	streams
	args []string

	// exit ends the process with kubectl's exit code.
	exit func(code int)
	// none is why no authority was found, if none was looked for in vain.
	none error
}

// newKubectl passes everything after "kubectl", flags and --help included, to
// kubectl itself, so it has no help of its own.
func newKubectl(s streams) *cobra.Command {
	return &cobra.Command{
		Use:                "kubectl ARGUMENT...",
		Short:              "Run kubectl, on the authority that runs here if no kubeconfig is named",
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

// complete points kubectl at the authority that runs here, unless the user
// has named a kubeconfig. It does so through the environment, which is the
// only way that reaches all of kubectl, "kubectl config" too.
func (o *kubectlOptions) complete() error {
	if os.Getenv(kubeconfigEnv) != "" || namesKubeconfig(o.args) {
		return nil
	}
	if isWorkload() {
		return os.Setenv(kubeconfigEnv, noKubeconfig)
	}
	running, err := datadir.FindOne()
	switch {
	case err == nil:
		if err := os.Setenv(kubeconfigEnv, running.Kubeconfig()); err != nil {
			return fmt.Errorf("set %s: %w", kubeconfigEnv, err)
		}
	case errors.Is(err, datadir.ErrNoneRunning):
		o.none = err
	case !needsNoServer(o.args):
		return err
	}
	return nil
}

// namesKubeconfig looks for the flag as far as kubectl itself would.
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

// needsNoServer tells whether it does not matter which authority is meant.
func needsNoServer(args []string) bool {
	if len(args) == 0 || slices.Contains(args, "--help") || slices.Contains(args, "-h") {
		return true
	}
	return slices.Contains([]string{"help", "options", "completion", "kustomize", cobra.ShellCompRequestCmd, cobra.ShellCompNoDescRequestCmd}, args[0])
}

// run does what the main function of kubectl does.
func (o *kubectlOptions) run() {
	kubectlutil.BehaviorOnFatal(o.fatal)
	if err := basecli.RunNoErrOutput(o.command()); err != nil {
		kubectlutil.CheckErr(err)
	}
}

// fatal prints what kubectl has to say about its end, and ends the process:
// kubectl may call it in any goroutine.
func (o *kubectlOptions) fatal(message string, code int) {
	hint := ""
	if strings.Contains(message, genericclioptions.ErrEmptyConfig.Error()) {
		err := noServer(o.none)
		message, hint = "error: "+err.Error(), hintOf(err)
	}
	if message != "" {
		fmt.Fprintln(o.err, strings.TrimSuffix(message, "\n"))
	}
	if hint != "" {
		fmt.Fprintf(o.err, "hint: %s\n", hint)
	}
	o.exit(code)
}

// withoutLocalhost keeps kubectl from http://localhost:8080, which it tries
// several times where it knows of no server. It then ends with genericclioptions.ErrEmptyConfig.
func withoutLocalhost() {
	if os.Getenv("KUBERNETES_MASTER") == "" {
		clientcmd.ClusterDefaults.Server = ""
	}
}

// namedAgent has the server's logs name this program.
func namedAgent(config *rest.Config) *rest.Config {
	config.UserAgent = version.Current().UserAgent()
	return config
}

// command returns kubectl's own command tree, without plugins: what a user
// runs as part of lanyard is lanyard.
func (o *kubectlOptions) command() *cobra.Command {
	withoutLocalhost()
	io := genericiooptions.IOStreams{In: o.in, Out: o.out, ErrOut: o.err}
	flags := genericclioptions.NewConfigFlags(true).WithDeprecatedPasswordFlag().
		WithDiscoveryBurst(discoveryBurst).WithDiscoveryQPS(discoveryQPS).WithWarningPrinter(io).
		WithWrapConfigFn(namedAgent)
	root := kubectl.NewDefaultKubectlCommandWithArgs(kubectl.KubectlOptions{
		Arguments:   append([]string{"kubectl"}, o.args...),
		ConfigFlags: flags,
		IOStreams:   io,
	})
	// Usage texts then show commands that the reader can run.
	root.Annotations = map[string]string{cobra.CommandDisplayNameAnnotation: "lanyard kubectl"}
	root.SetArgs(given(o.args))
	root.SetIn(o.in)
	root.SetOut(o.out)
	root.SetErr(o.err)
	replaceVersion(root, flags, io)
	return root
}

// replaceVersion puts a "version" into kubectl's tree that knows its version.
// kubectl's own prints what the linker was told, which in every other build,
// as by go run, is v0.0.0-master, and then warns of the difference.
func replaceVersion(root *cobra.Command, flags *genericclioptions.ConfigFlags, io genericiooptions.IOStreams) {
	for _, cmd := range root.Commands() {
		if cmd.Name() != "version" {
			continue
		}
		o := &kubectlVersionOptions{flags: flags, io: io}
		cmd.Args = cobra.NoArgs
		cmd.Run = func(cmd *cobra.Command, _ []string) {
			// The flags are those of kubectl's command.
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

// run prints what is known even when the server cannot be asked.
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

// serverVersion is nil without an error when no server is configured.
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

// clientVersion is the linker's word, if it has one, else that of the
// Kubernetes libraries in this program.
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
