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
names, with the binding, its role and where it applies. The members of a group
are not known, so the result names the group.

RESOURCE is written as for lanyard access explain. Without a name, a note gives
the number of subjects that may do it for certain objects only. Another note
contains the attributes of the request.`

const whoCanExamples = `  # Who may read the Secret "db"?
  lanyard access who-can get secrets/db -n shop

  # Who may impersonate every user?
  lanyard access who-can impersonate users -o wide

  # Who may read metrics by the policy in a file?
  lanyard access who-can get /metrics -f policy.yaml`

type whoCanOptions struct {
	accessOptions
	target targetOptions
}

func newAccessWhoCan(s streams) *cobra.Command {
	o := &whoCanOptions{accessOptions: newAccessOptions(s)}
	cmd := &cobra.Command{
		Use:     "who-can VERB RESOURCE[/NAME] [-n NAMESPACE]",
		Short:   "Show who may do something",
		Long:    whoCanHelp,
		Example: whoCanExamples,

		DisableFlagsInUseLine: true,
		RunE:                  checkAndRun(o.validate, o.run),
	}
	o.target.addFlags(cmd)
	o.accessOptions.addFlags(cmd)
	return cmd
}

func (o *whoCanOptions) validate(args []string) error {
	if err := expectArgs(args, 2, "VERB RESOURCE"); err != nil {
		return err
	}
	o.target.verb, o.target.text = args[0], args[1]
	return errors.Join(o.target.validate(), o.accessOptions.validate())
}

func (o *whoCanOptions) run(ctx context.Context) error {
	loaded, err := o.source.load(ctx, o.target.namespace)
	if err != nil {
		return err
	}
	if loaded.noBindings {
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
	return o.output.printAnswer(o.streams, found, found.Notes, func(w io.Writer, wide bool) error { return printHolders(w, &found, wide) })
}

func printHolders(w io.Writer, h *access.Holders, wide bool) error {
	if len(h.Grants) == 0 {
		return write(w, singleLine(fmt.Sprintf("No binding lets anyone %s %s.", h.Verb, h.Target.String()))+"\n")
	}
	columns := viaColumns(wide)
	return printTable(w, "", columns, len(h.Grants), func(i int) []string { return viaCells(&h.Grants[i], wide) })
}
