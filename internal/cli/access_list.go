package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"lanyard.dev/internal/access"
)

const accessListHelp = `Show all that someone may do, in all namespaces or in one, with the bindings
each permission comes from. A resource is written RESOURCE.GROUP; "*" stands for
all. What is granted everywhere and in a namespace too is shown for both.

If you may not read the policy and ask about yourself, the API server is asked
what you may do in the namespace; it does not say by which bindings.`

const accessListExamples = `  # What may the account "web" do?
  lanyard access list sa:shop/web

  # What may it do in one namespace?
  lanyard access list sa:shop/web -n shop

  # What do two groups give someone, with the roles?
  lanyard access list user:ann --group developers --group on-call -o wide

  # What would these files let a node do?
  lanyard access list node:worker-1 -f policy/`

type accessListOptions struct {
	streams
	source  policySource
	subject subjectOptions
	output  tableOptions

	namespace string
}

func newAccessList(s streams) *cobra.Command {
	o := &accessListOptions{streams: s, source: policySource{streams: s}}
	cmd := &cobra.Command{
		Use:     "list SUBJECT [-n NAMESPACE]",
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
	cmd.Flags().StringVarP(&o.namespace, "namespace", "n", "", "only what holds in this namespace, what is granted everywhere included; with -f, also that of objects that name none")
	o.subject.addFlags(cmd)
	o.source.addFlags(cmd)
	o.output.addFlags(cmd)
	return cmd
}

func (o *accessListOptions) run(ctx context.Context) error {
	loaded, err := o.source.load(ctx, o.namespace)
	if err != nil {
		return err
	}
	found, err := o.list(ctx, loaded)
	if err != nil {
		return err
	}
	found.Notes = slices.Concat(loaded.notes, loaded.subjectNotes(ctx, &o.subject.subject), found.Notes)
	return o.output.print(o.streams, found, found.Notes, func(w io.Writer, wide bool) error { return printPermissions(w, &found, wide) })
}

// list answers from the policy. Where not all of that could be read, the API server tells callers what they may do
// themselves in one namespace.
func (o *accessListOptions) list(ctx context.Context, loaded *loadedPolicy) (access.Permissions, error) {
	if loaded.forbidden == nil {
		return loaded.policy.List(o.subject.subject, o.namespace), nil
	}
	self, groups := loaded.server.isCaller(ctx, &o.subject.subject)
	switch {
	case !self && loaded.nothing:
		return access.Permissions{}, loaded.forbidden
	case !self:
		return loaded.policy.List(o.subject.subject, o.namespace), nil
	}
	rules, note, err := loaded.server.rules(ctx, loaded.namespace)
	if err != nil {
		return access.Permissions{}, err
	}
	found := access.ListRules(o.subject.subject, loaded.namespace, rules)
	loaded.notes = []string{fmt.Sprintf("you may not read the policy: this is what the API server says you may do in namespace %s, "+
		"by bindings there and everywhere", loaded.namespace)}
	for _, n := range []string{groups, note} {
		if n != "" {
			found.Notes = append(found.Notes, n)
		}
	}
	return found, nil
}

func printPermissions(w io.Writer, p *access.Permissions, wide bool) error {
	if len(p.Permissions) == 0 {
		where := ""
		if p.Namespace != "" {
			where = " in namespace " + p.Namespace
		}
		return write(w, cell("No binding lets "+p.Subject.Text+" do anything"+where+".")+"\n")
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
			cmp.Or(each(item.Via, func(v access.Via) string { return v.Binding.String() }), "not known"),
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
