package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/spf13/cobra"

	"lanyard.dev/internal/access"
	"lanyard.dev/internal/rbac"
)

const explainHelp = `Say whether someone may do something, and why. If so, every binding that
allows it is shown, with its role. If not, the bindings that come nearest are,
with what they lack: another verb, another namespace, a name, a role that does
not exist.

RESOURCE is written as for kubectl: pods, po, deployments.apps, or a path such
as /metrics. A name or a subresource may follow: pods/web, pods/log,
pods/web/log. TYPE/X means the subresource X if TYPE is known to have one or a
rule names it, else the object X; --subresource and --name leave no doubt. The
second line of the answer holds the attributes that were asked about.

The exit code is 0 for yes and 1 for no, and for an answer that is not known.`

const explainExamples = `  # May the account "web" list pods in its namespace?
  lanyard access explain sa:shop/web list pods -n shop

  # Why may this node read all nodes?
  lanyard access explain node:worker-1 list nodes

  # May they read the object "metrics" of widgets, rather than a subresource?
  lanyard access explain user:ann get widgets --name metrics

  # By the files in a directory, as JSON
  lanyard access explain sa:shop/web get secrets/db -n shop -f deploy/ -o json`

type explainOptions struct {
	streams
	source  policySource
	subject subjectOptions
	target  targetOptions
	output  tableOptions
}

func newAccessExplain(s streams) *cobra.Command {
	o := &explainOptions{streams: s, source: policySource{streams: s}}
	cmd := &cobra.Command{
		Use:     "explain SUBJECT VERB RESOURCE[/NAME] [-n NAMESPACE]",
		Short:   "Say whether someone may do something, and why",
		Long:    explainHelp,
		Example: explainExamples,

		DisableFlagsInUseLine: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := exactArgs(cmd, args, 3, "SUBJECT VERB RESOURCE"); err != nil {
				return err
			}
			if err := o.complete(cmd, args); err != nil {
				return usageError(cmd, err)
			}
			if err := o.validate(); err != nil {
				return usageError(cmd, err)
			}
			return o.run(cmd.Context())
		},
	}
	o.subject.addFlags(cmd)
	o.target.addFlags(cmd)
	o.source.addFlags(cmd)
	o.output.addFlags(cmd)
	return cmd
}

func (o *explainOptions) complete(cmd *cobra.Command, args []string) error {
	o.target.complete(cmd, args[1], args[2])
	return o.subject.complete(args[0])
}

func (o *explainOptions) validate() error {
	return errors.Join(o.target.validate(), o.source.validate(), o.output.validate())
}

func (o *explainOptions) run(ctx context.Context) error {
	loaded, err := o.source.load(ctx, o.target.namespace)
	if err != nil {
		return err
	}
	target, err := o.target.resolve(ctx, loaded)
	if err != nil {
		return err
	}
	found := loaded.policy.Explain(access.Question{Subject: o.subject.subject, Verb: o.target.verb, Target: target})
	found.Notes = slices.Concat(loaded.notes, loaded.subjectNotes(ctx, &o.subject.subject), found.Notes)
	switch _, isNode := o.subject.subject.Node(); {
	case loaded.server != nil:
		if !found.Allowed {
			found.Notes = append(found.Notes, loaded.policy.Typos(loaded.catalog, &o.subject.subject)...)
		}
		loaded.settle(ctx, &found)
	case isNode && !found.Allowed:
		found.Notes = append(found.Notes, "only RBAC is asked here: an API server may allow nodes more, by the pods bound to them")
	}
	err = o.output.print(o.streams, found, found.Notes, func(w io.Writer, wide bool) error { return printExplanation(w, &found, wide) })
	if err == nil && !found.Allowed {
		return verdict(exitFailure)
	}
	return err
}

// settle puts the cluster's own decision in place of what its policy says by itself: something besides RBAC may decide,
// and not all of the policy may have been read. Without both the answer is not known.
func (l *loadedPolicy) settle(ctx context.Context, e *access.Explanation) {
	status, asked := l.server.decide(ctx, e)
	switch {
	case !asked:
		e.Unknown = !e.Allowed && !l.covers(e.Target.Namespace) || e.Allowed && l.grantsAreAssumed(e.Grants)
		e.Allowed = e.Allowed && !e.Unknown
	case status.Allowed != e.Allowed && l.forbidden == nil:
		e.Notes = append(e.Notes, fmt.Sprintf("RBAC alone says %s, and the API server %s, which counts%s", yesOrNo(e.Allowed), yesOrNo(status.Allowed), because(status.Reason)))
	case l.forbidden != nil:
		e.Notes = append(e.Notes, fmt.Sprintf("the API server was asked and says %s%s", yesOrNo(status.Allowed), because(status.Reason)))
	}
	if asked {
		e.Allowed = status.Allowed
	}
	if e.Allowed {
		e.Misses = nil
	}
}

// covers reports whether all was read of the policy that counts in a namespace, or in none.
func (l *loadedPolicy) covers(namespace string) bool {
	return l.forbidden == nil || l.whole && (namespace == "" || namespace == l.namespace)
}

// grantsAreAssumed reports whether no grant is certain, because the role of each could not be read: the cluster's role of
// that name may hold other rules than Kubernetes' default one.
func (l *loadedPolicy) grantsAreAssumed(grants []access.Via) bool {
	return len(grants) > 0 && !slices.ContainsFunc(grants, func(via access.Via) bool {
		return via.Role.Kind != rbac.ClusterRole.String() || !slices.Contains(l.assumed, via.Role.Name)
	})
}

func yesOrNo(yes bool) string {
	if yes {
		return "yes"
	}
	return "no"
}

func because(reason string) string {
	if reason == "" {
		return ""
	}
	return ": " + reason
}

// headline is the answer in a sentence, and what exactly was asked.
func headline(e *access.Explanation) string {
	answer, can := yesOrNo(e.Allowed), "cannot"
	switch {
	case e.Allowed:
		can = "can"
	case e.Unknown:
		answer, can = "unknown", "is not known to be able to"
	}
	text := cell(fmt.Sprintf("%s: %s %s %s %s", answer, e.Subject.Text, can, e.Verb, e.Target.String())) + "\n"
	text += cell("request: "+e.Target.Attributes(e.Verb)) + "\n"
	for _, way := range e.Ways {
		text += way.Text + ": " + yesOrNo(way.Allowed) + "\n"
	}
	return text
}

func printExplanation(w io.Writer, e *access.Explanation, wide bool) error {
	if err := write(w, headline(e)); err != nil {
		return err
	}
	switch {
	case len(e.Grants) > 0:
		return printTable(w, "\n", viaColumns(wide), len(e.Grants), func(i int) []string { return viaCells(&e.Grants[i], wide) })
	case len(e.Misses) > 0:
		columns := append([]string{"NEAREST MISS"}, viaColumns(wide)...)
		return printTable(w, "\n", columns, len(e.Misses), func(i int) []string {
			return append([]string{e.Misses[i].Text}, viaCells(&e.Misses[i].Via, wide)...)
		})
	case !e.Allowed && !e.Unknown:
		return write(w, "\nNo binding of theirs comes near.\n")
	case !e.Allowed:
		return write(w, "\nNo binding that could be read comes near.\n")
	}
	return nil
}
