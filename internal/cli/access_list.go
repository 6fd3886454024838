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

const accessListHelp = `Show everything that a subject may do, in all namespaces or in one, with the
bindings that grant each permission. A resource is written as RESOURCE.GROUP,
and "*" means all. A permission that is granted both in all namespaces and in
one appears twice.

If you may not read the policy and the subject is yourself, the result is the
API server's list of what you may do in the namespace. It names no bindings.`

const accessListExamples = `  # What may the account "web" do?
  lanyard access list sa:shop/web

  # What may it do in one namespace?
  lanyard access list sa:shop/web -n shop

  # What may ann do as a member of two groups, and by which roles?
  lanyard access list user:ann --group developers --group on-call -o wide

  # What would a node be allowed to do by the policy in a directory?
  lanyard access list node:worker-1 -f policy/`

type accessListOptions struct {
	accessOptions
	subject subjectOptions

	namespace string
}

func newAccessList(s streams) *cobra.Command {
	o := &accessListOptions{accessOptions: newAccessOptions(s)}
	cmd := &cobra.Command{
		Use:     "list SUBJECT [-n NAMESPACE]",
		Short:   "Show everything that a subject may do",
		Long:    accessListHelp,
		Example: accessListExamples,

		DisableFlagsInUseLine: true,
		RunE:                  checkAndRun(o.validate, o.run),
	}
	cmd.Flags().StringVarP(&o.namespace, "namespace", "n", "", "show only what applies in this namespace; with -f, also the namespace of objects that name none")
	o.subject.addFlags(cmd)
	o.accessOptions.addFlags(cmd)
	return cmd
}

func (o *accessListOptions) validate(args []string) error {
	if err := expectArgs(args, 1, "SUBJECT"); err != nil {
		return err
	}
	return errors.Join(o.subject.parse(args[0]), o.accessOptions.validate())
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
	return o.output.printAnswer(o.streams, found, found.Notes, func(w io.Writer, wide bool) error { return printPermissions(w, &found, wide) })
}

// list returns the permissions by the policy. If the policy could not be read completely and the subject is the caller, it
// returns what the API server reports for one namespace.
func (o *accessListOptions) list(ctx context.Context, loaded *loadedPolicy) (access.Permissions, error) {
	if loaded.forbidden == nil {
		return loaded.policy.List(o.subject.subject, o.namespace), nil
	}
	self, groups := loaded.server.isCaller(ctx, &o.subject.subject)
	switch {
	case !self && loaded.noBindings:
		return access.Permissions{}, loaded.forbidden
	case !self:
		return loaded.policy.List(o.subject.subject, o.namespace), nil
	}
	rules, note, err := loaded.server.rules(ctx, loaded.namespace)
	if err != nil {
		return access.Permissions{}, err
	}
	found := access.ListRules(o.subject.subject, loaded.namespace, rules)
	loaded.notes = []string{fmt.Sprintf("you may not read the policy: this is what you may do according to the API server in namespace %s, "+
		"by bindings of that namespace and of the whole cluster", loaded.namespace)}
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
		return write(w, singleLine("No binding lets "+p.Subject.Text+" do anything"+where+".")+"\n")
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
			cmp.Or(joinUnique(item.Via, func(v access.Via) string { return v.Binding.String() }), "unknown"),
		}
		if wide {
			cells = append(cells, joinUnique(item.Via, func(v access.Via) string { return v.Role.String() }),
				joinUnique(item.Via, func(v access.Via) string { return subjectText(v.Subject) }))
		}
		return cells
	})
}

// joinUnique joins the texts of the items, without repetitions.
func joinUnique(vias []access.Via, text func(access.Via) string) string {
	var texts []string
	for _, v := range vias {
		if t := text(v); !slices.Contains(texts, t) {
			texts = append(texts, t)
		}
	}
	return strings.Join(texts, ", ")
}
