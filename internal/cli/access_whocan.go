package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/spf13/cobra"

	"lanyard.dev/internal/access"
)

const whoCanHelp = `Show who may do something: each user, group and service account that a binding
names, with the binding, its role and where it holds. Who is in a group is not
known here, so that groups stand for their members.

RESOURCE is written as for lanyard access explain. Without a name, those who
may do it to some objects only are counted, not shown. A note holds the
attributes that were asked about.`

const whoCanExamples = `  # Who may read the Secret "db"?
  lanyard access who-can get secrets/db -n shop

  # Who may become anyone?
  lanyard access who-can impersonate users -o wide

  # Who reads metrics, by a file?
  lanyard access who-can get /metrics -f policy.yaml`

type whoCanOptions struct {
	streams
	source policySource
	target targetOptions
	output tableOptions
}

func newAccessWhoCan(s streams) *cobra.Command {
	o := &whoCanOptions{streams: s, source: policySource{streams: s}}
	cmd := &cobra.Command{
		Use:     "who-can VERB RESOURCE[/NAME] [-n NAMESPACE]",
		Short:   "Show who may do something",
		Long:    whoCanHelp,
		Example: whoCanExamples,

		DisableFlagsInUseLine: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := exactArgs(cmd, args, 2, "VERB RESOURCE"); err != nil {
				return err
			}
			o.target.complete(cmd, args[0], args[1])
			if err := o.validate(); err != nil {
				return usageError(cmd, err)
			}
			return o.run(cmd.Context())
		},
	}
	o.target.addFlags(cmd)
	o.source.addFlags(cmd)
	o.output.addFlags(cmd)
	return cmd
}

func (o *whoCanOptions) validate() error {
	return errors.Join(o.target.validate(), o.source.validate(), o.output.validate())
}

func (o *whoCanOptions) run(ctx context.Context) error {
	loaded, err := o.source.load(ctx, o.target.namespace)
	if err != nil {
		return err
	}
	if loaded.nothing {
		return loaded.forbidden
	}
	target, err := o.target.resolve(ctx, loaded)
	if err != nil {
		return err
	}
	found := loaded.policy.WhoCan(o.target.verb, target)
	found.Notes = slices.Concat([]string{"request: " + target.Attributes(o.target.verb)}, loaded.notes, found.Notes)
	if loaded.server != nil {
		found.Notes = append(found.Notes, loaded.server.holderNotes(ctx, found.Grants)...)
	}
	return o.output.print(o.streams, found, found.Notes, func(w io.Writer, wide bool) error { return printHolders(w, &found, wide) })
}

func printHolders(w io.Writer, h *access.Holders, wide bool) error {
	if len(h.Grants) == 0 {
		return write(w, cell(fmt.Sprintf("No binding lets anyone %s %s.", h.Verb, h.Target.String()))+"\n")
	}
	columns := viaColumns(wide)
	return printTable(w, "", columns, len(h.Grants), func(i int) []string { return viaCells(&h.Grants[i], wide) })
}
