package cli

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"lanyard.dev/internal/access"
)

const accessHelp = `Ask an RBAC policy why, who and what: why someone may or may not do something,
who may do it, and what someone may do. The answers come from the engine that
authorizes requests, and nothing is changed.

The policy is that of a cluster, any Kubernetes cluster, named as kubectl does:
by --kubeconfig, KUBECONFIG, the authority that runs here, or ~/.kube/config. If
you may not list all roles and bindings, those of one namespace are read, and
the API server is asked for its own decision where you may ask for it; a note
says what the answer covers. Or the policy is that of YAML and JSON files, with
-f. Kubernetes' default roles and bindings then count besides.

Someone is
  sa:NAMESPACE/NAME  a service account; NAMESPACE/NAME and
                     system:serviceaccount:NAMESPACE:NAME mean the same
  user:NAME          a user; --group names groups of theirs
  group:NAME         any member of a group
  node:NAME          a node
with the groups that follow from that, such as system:authenticated.

Only RBAC is explained. What else a cluster decides by, such as the node
authorizer or a webhook, may allow more; a cluster's own decision counts where
you may create a SubjectAccessReview.`

func newAccess(s streams) *cobra.Command {
	group := newGroup(s, "access", "Ask why, who and what of an RBAC policy", accessHelp)
	group.AddCommand(newAccessExplain(s), newAccessWhoCan(s), newAccessList(s))
	return group
}

// subjectOptions say who is asked about.
type subjectOptions struct {
	groups  []string
	subject access.Subject
}

func (o *subjectOptions) addFlags(cmd *cobra.Command) {
	cmd.Flags().StringArrayVar(&o.groups, "group", nil, "group the subject is in besides the implicit ones; may be given more than once")
}

func (o *subjectOptions) complete(text string) (err error) {
	o.subject, err = access.ParseSubject(text, o.groups...)
	return err
}

// targetOptions say what is asked about, and where.
type targetOptions struct {
	verb, text    string
	namespace     string
	allNamespaces bool
	subresource   string
	hasSub        bool
	name          string
}

func (o *targetOptions) addFlags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVarP(&o.namespace, "namespace", "n", "", "namespace asked about (default that of the kubeconfig's context, or \"default\")")
	f.BoolVarP(&o.allNamespaces, "all-namespaces", "A", false, "ask about all namespaces at once")
	f.StringVar(&o.subresource, "subresource", "", "subresource, as log; what follows the resource's slash is then a name")
	f.StringVar(&o.name, "name", "", "name of the object; what follows the resource's slash is then a subresource")
}

func (o *targetOptions) complete(cmd *cobra.Command, verb, text string) {
	o.verb, o.text = verb, text
	o.hasSub = cmd.Flags().Changed("subresource")
}

func (o *targetOptions) validate() error {
	if o.allNamespaces && o.namespace != "" {
		return errors.New("--all-namespaces and --namespace exclude each other")
	}
	return nil
}

// resolve reads the resource by what the source of the policy knows.
func (o *targetOptions) resolve(ctx context.Context, from *loadedPolicy) (access.Target, error) {
	spec := access.Spec{Verb: o.verb, Text: o.text, Namespace: from.namespace, Name: o.name}
	if o.allNamespaces {
		spec.Namespace = ""
	}
	if o.hasSub {
		spec.Subresource = &o.subresource
	}
	target, notes, err := from.catalog.Resolve(spec)
	if err != nil {
		return target, err
	}
	if o.namespace != "" && target.Namespace == "" && target.Path == "" {
		notes = append(notes, fmt.Sprintf("%s are in no namespace, so -n says nothing", target.Resource))
	}
	from.notes = append(from.notes, notes...)
	if from.server != nil {
		from.notes = append(from.notes, from.server.targetNotes(ctx, o.verb, &target)...)
	}
	return target, nil
}

// exactArgs is cobra.ExactArgs in this package's words.
func exactArgs(cmd *cobra.Command, args []string, n int, names string) error {
	switch {
	case len(args) < n:
		return usageError(cmd, errors.New("expected "+names))
	case len(args) > n:
		return noArgs(cmd, args[n:])
	}
	return nil
}
