package cli

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"lanyard.dev/internal/version"
)

const versionHelp = `Print the version of lanyard, of the Kubernetes API that it serves, and of the
Go release that built it.`

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
		Short:   "Print the version of lanyard and of the Kubernetes API",
		Long:    versionHelp,
		Example: versionExamples,
		Args:    noArgs,
		RunE: checkAndRun(
			func([]string) error { return o.output.validate() },
			func(context.Context) error { return o.run(version.Current()) },
		),
	}
	o.output.addFlags(cmd, formatText, formatJSON, formatYAML)
	return cmd
}

func (o *versionOptions) run(v version.Build) error {
	return o.output.print(o.out, v, func(w io.Writer) error {
		built := v.Go + " " + v.Platform
		if v.Commit != "" {
			built += " commit " + v.Commit
			if v.TreeState != "" {
				built += ", " + v.TreeState
			}
		}
		return write(w, fmt.Sprintf("lanyard %s\nKubernetes API %s\nbuilt with %s\n", v.Lanyard, v.Kubernetes, built))
	})
}
