package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"runtime"
	"strings"

	"github.com/spf13/cobra"
	apiversion "k8s.io/apimachinery/pkg/version"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	"k8s.io/cli-runtime/pkg/genericiooptions"
	"k8s.io/client-go/tools/clientcmd"
	baseversion "k8s.io/component-base/version"
	kubectlutil "k8s.io/kubectl/pkg/cmd/util"
	kubectlversion "k8s.io/kubectl/pkg/cmd/version"
	"sigs.k8s.io/yaml"

	"lanyard.dev/internal/version"
)

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
