package cli

import (
	"context"
	"errors"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"lanyard.dev/internal/access"
)

const accessListHelp = `Show all that someone may do, in all namespaces, with the bindings each
permission comes from. A resource is written RESOURCE.GROUP; "*" stands for
all. What is granted everywhere and in a namespace too is shown for both.`

const accessListExamples = `  # What may the account "web" do?
  lanyard access list sa:shop/web

  # What do two groups give someone, with the roles?
  lanyard access list user:ann --group developers --group on-call -o wide

  # What would these files let a node do?
  lanyard access list node:worker-1 -f policy/ --default-roles`

type accessListOptions struct {
	streams
	source  policySource
	subject subjectOptions
	output  tableOptions
}

func newAccessList(s streams) *cobra.Command {
	o := &accessListOptions{streams: s, source: policySource{streams: s}}
	cmd := &cobra.Command{
		Use:     "list SUBJECT",
		Short:   "Show all that someone may do",
		Long:    accessListHelp,
		Example: accessListExamples,

		DisableFlagsInUseLine: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := exactArgs(cmd, args, 1, "SUBJECT"); err != nil {
				return err
			}
			if err := errors.Join(o.subject.complete(args[0]), o.source.validate(), o.output.validate()); err != nil {
				return usageError(cmd, err)
			}
			return o.run(cmd.Context())
		},
	}
	o.subject.addFlags(cmd)
	o.source.addFlags(cmd)
	o.output.addFlags(cmd)
	return cmd
}

func (o *accessListOptions) run(ctx context.Context) error {
	loaded, err := o.source.load(ctx, "")
	if err != nil {
		return err
	}
	found := loaded.policy.List(o.subject.subject)
	found.Notes = append(loaded.notes, found.Notes...)
	return o.output.print(o.streams, found, found.Notes, func(w io.Writer, wide bool) error { return printPermissions(w, &found, wide) })
}

func printPermissions(w io.Writer, p *access.Permissions, wide bool) error {
	if len(p.Permissions) == 0 {
		return write(w, cell("No binding lets "+p.Subject.Text+" do anything.")+"\n")
	}
	columns := []string{"SCOPE", "RESOURCE", "NAMES", "VERBS", "BINDINGS"}
	if wide {
		columns = append(columns, "ROLES", "SUBJECTS")
	}
	return printTable(w, "", columns, len(p.Permissions), func(i int) []string {
		item := &p.Permissions[i]
		cells := []string{
			scopeText(item.Namespace), strings.Join(append(resourceTexts(item.APIGroups, item.Resources), item.NonResourceURLs...), ","),
			strings.Join(item.ResourceNames, ","), strings.Join(item.Verbs, ","),
			each(item.Via, func(v access.Via) string { return v.Binding.String() }),
		}
		if wide {
			cells = append(cells, each(item.Via, func(v access.Via) string { return v.Role.String() }),
				each(item.Via, func(v access.Via) string { return subjectText(v.Subject) }))
		}
		return cells
	})
}

// each joins what text says of each item, repetitions left out.
func each(vias []access.Via, text func(access.Via) string) string {
	var texts []string
	for _, v := range vias {
		if t := text(v); !slices.Contains(texts, t) {
			texts = append(texts, t)
		}
	}
	return strings.Join(texts, ", ")
}
