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

const explainHelp = `Show whether a subject may do something, and why. If it may, the result lists
every binding that allows it, with its role. If it may not, the result lists the
bindings that come closest, and why each does not allow it: it is for another
verb, another namespace or another name, or its role does not exist.

RESOURCE is written as for kubectl: pods, po, deployments.apps, or a path such
as /metrics. A name or a subresource may follow: pods/web, pods/log,
pods/web/log. TYPE/X means the subresource X if TYPE is known to have it or if a
rule names it, and otherwise the object X. --subresource and --name select the
meaning. The second line of the result contains the attributes of the request.

The exit code is 0 for yes, and 1 for no or if the answer is unknown.`

const explainExamples = `  # May the account "web" list pods in its namespace?
  lanyard access explain sa:shop/web list pods -n shop

  # Why may this node read all nodes?
  lanyard access explain node:worker-1 list nodes

  # May ann read the widget named "metrics", as opposed to a subresource?
  lanyard access explain user:ann get widgets --name metrics

  # With the policy in a directory, as JSON
  lanyard access explain sa:shop/web get secrets/db -n shop -f deploy/ -o json`

type explainOptions struct {
	accessOptions
	subject subjectOptions
	target  targetOptions
}

func newAccessExplain(s streams) *cobra.Command {
	o := &explainOptions{accessOptions: newAccessOptions(s)}
	cmd := &cobra.Command{
		Use:     "explain SUBJECT VERB RESOURCE[/NAME] [-n NAMESPACE]",
		Short:   "Show whether a subject may do something, and why",
		Long:    explainHelp,
		Example: explainExamples,

		DisableFlagsInUseLine: true,
		RunE:                  checkAndRun(o.validate, o.run),
	}
	o.subject.addFlags(cmd)
	o.target.addFlags(cmd)
	o.accessOptions.addFlags(cmd)
	return cmd
}

func (o *explainOptions) validate(args []string) error {
	if err := expectArgs(args, 3, "SUBJECT VERB RESOURCE"); err != nil {
		return err
	}
	if err := o.subject.parse(args[0]); err != nil {
		return err
	}
	o.target.verb, o.target.text = args[1], args[2]
	return errors.Join(o.target.validate(), o.accessOptions.validate())
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
		loaded.applyDecision(ctx, &found)
	case isNode && !found.Allowed:
		found.Notes = append(found.Notes, "this answer considers RBAC only: an API server may allow nodes more, because of the pods bound to them")
	}
	err = o.output.printAnswer(o.streams, found, found.Notes, func(w io.Writer, wide bool) error { return printExplanation(w, &found, wide) })
	if err == nil && !found.Allowed {
		return exitCode(exitFailure)
	}
	return err
}

// applyDecision replaces the result of the policy with the cluster's own decision: other authorizers may decide too, and the
// policy may have been read in part only. Without a decision, and without the whole policy, the answer is unknown.
func (l *loadedPolicy) applyDecision(ctx context.Context, e *access.Explanation) {
	status, decided := l.server.decide(ctx, e)
	switch {
	case !decided:
		e.Unknown = !e.Allowed && !l.covers(e.Target.Namespace) || e.Allowed && l.grantsAreAssumed(e.Grants)
		e.Allowed = e.Allowed && !e.Unknown
	case status.Allowed != e.Allowed && l.forbidden == nil:
		e.Notes = append(e.Notes, fmt.Sprintf("by RBAC alone the answer is %s, but the API server's answer is %s, which is the result%s", yesNo(e.Allowed), yesNo(status.Allowed), reasonText(status.Reason)))
	case l.forbidden != nil:
		e.Notes = append(e.Notes, fmt.Sprintf("the API server's own answer is %s%s", yesNo(status.Allowed), reasonText(status.Reason)))
	}
	if decided {
		e.Allowed = status.Allowed
	}
	if e.Allowed {
		e.Misses = nil
	}
}

// covers reports whether everything was read that applies in a namespace, or to cluster-scoped requests if namespace is empty.
func (l *loadedPolicy) covers(namespace string) bool {
	return l.forbidden == nil || l.whole && (namespace == "" || namespace == l.namespace)
}

// grantsAreAssumed reports whether every grant relies on a role that could not be read and is assumed to be Kubernetes' default
// role of that name. The cluster's role may have other rules.
func (l *loadedPolicy) grantsAreAssumed(grants []access.Via) bool {
	return len(grants) > 0 && !slices.ContainsFunc(grants, func(via access.Via) bool {
		return via.Role.Kind != rbac.ClusterRole.String() || !slices.Contains(l.assumed, via.Role.Name)
	})
}

func yesNo(yes bool) string {
	if yes {
		return "yes"
	}
	return "no"
}

func reasonText(reason string) string {
	if reason == "" {
		return ""
	}
	return ": " + reason
}

// headline returns the answer as a sentence, and the attributes of the request.
func headline(e *access.Explanation) string {
	answer, can := yesNo(e.Allowed), "cannot"
	switch {
	case e.Allowed:
		can = "can"
	case e.Unknown:
		answer, can = "unknown", "is not known to be able to"
	}
	text := singleLine(fmt.Sprintf("%s: %s %s %s %s", answer, e.Subject.Text, can, e.Verb, e.Target.String())) + "\n"
	text += singleLine("request: "+e.Target.Attributes(e.Verb)) + "\n"
	for _, way := range e.Ways {
		text += way.Text + ": " + yesNo(way.Allowed) + "\n"
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
		return write(w, "\nNo binding of the subject comes close.\n")
	case !e.Allowed:
		return write(w, "\nNo binding that could be read comes close.\n")
	}
	return nil
}
