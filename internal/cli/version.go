package cli

import (
	"fmt"
	"io"
	"runtime"
	"runtime/debug"
	"strings"

	"github.com/spf13/cobra"
)

// kubernetesModule is the library whose version says which Kubernetes is
// served: its v0.37.2 is part of Kubernetes v1.37.2.
const (
	kubernetesModule  = "k8s.io/apiserver"
	kubernetesRelease = "v1.37"
)

// versionInfo is the result of lanyard version.
type versionInfo struct {
	Lanyard    string `json:"lanyard"`
	Commit     string `json:"commit,omitempty"`
	Kubernetes string `json:"kubernetes"`
	Go         string `json:"go"`
	Platform   string `json:"platform"`
}

func currentVersion() versionInfo {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		info = &debug.BuildInfo{GoVersion: runtime.Version()}
	}
	return describeBuild(info)
}

func describeBuild(info *debug.BuildInfo) versionInfo {
	v := versionInfo{
		Lanyard:    info.Main.Version,
		Kubernetes: kubernetesRelease,
		Go:         info.GoVersion,
		Platform:   runtime.GOOS + "/" + runtime.GOARCH,
	}
	if v.Lanyard == "" {
		v.Lanyard = "(devel)"
	}
	for _, setting := range info.Settings {
		if setting.Key == "vcs.revision" {
			v.Commit = setting.Value
		}
	}
	for _, dep := range info.Deps {
		if minor, ok := strings.CutPrefix(dep.Version, "v0."); ok && dep.Path == kubernetesModule {
			v.Kubernetes = "v1." + minor
		}
	}
	return v
}

const versionHelp = `Print the version of lanyard, of the Kubernetes API it serves, and of the Go
it was built with.`

const versionExamples = `  lanyard version
  lanyard version -o json`

type versionOptions struct {
	streams
	output outputOptions
}

func newVersion(s streams) *cobra.Command {
	o := &versionOptions{streams: s}
	cmd := &cobra.Command{
		Use:     "version",
		Short:   "Print the version of lanyard and of the Kubernetes API it serves",
		Long:    versionHelp,
		Example: versionExamples,
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := o.output.validate(); err != nil {
				return usageError(cmd, err)
			}
			return o.run(currentVersion())
		},
	}
	o.output.addFlags(cmd)
	return cmd
}

func (o *versionOptions) run(v versionInfo) error {
	return o.output.print(o.out, v, func(w io.Writer) error {
		built := v.Go + " " + v.Platform
		if v.Commit != "" {
			built += " commit " + v.Commit
		}
		return write(w, fmt.Sprintf("lanyard %s\nKubernetes API %s\nbuilt with %s\n", v.Lanyard, v.Kubernetes, built))
	})
}
