package cli

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"lanyard.dev/internal/access"
)

const explainHelp = `Say whether someone may do something, and why. If so, every binding that
allows it is shown, with its role. If not, the bindings that come nearest are,
with what they lack: another verb, another namespace, a name, a role that does
not exist.

RESOURCE is written as for kubectl: pods, po, deployments.apps, or a path such
as /metrics. A name or a subresource may follow: pods/web, pods/log,
pods/web/log.

The exit code is 0 for yes and 1 for no.`

const explainExamples = `  # May the account "web" list pods in its namespace?
  lanyard access explain sa:shop/web list pods -n shop

  # Why may this node read all nodes?
  lanyard access explain node:worker-1 list nodes

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
	target, err := o.target.resolve(loaded)
	if err != nil {
		return err
	}
	found := loaded.policy.Explain(access.Question{Subject: o.subject.subject, Verb: o.target.verb, Target: target})
	found.Notes = append(loaded.notes, found.Notes...)
	err = o.output.print(o.streams, found, found.Notes, func(w io.Writer, wide bool) error { return printExplanation(w, &found, wide) })
	if err == nil && !found.Allowed {
		return verdict(exitFailure)
	}
	return err
}

func printExplanation(w io.Writer, e *access.Explanation, wide bool) error {
	answer, can := "no", "cannot"
	if e.Allowed {
		answer, can = "yes", "can"
	}
	text := fmt.Sprintf("%s: %s %s %s %s", answer, e.Subject.Text, can, e.Verb, e.Target.String())
	if err := write(w, cell(text)+"\n"); err != nil {
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
	case !e.Allowed:
		return write(w, "\nNo binding of theirs comes near.\n")
	}
	return nil
}
