package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"lanyard.dev/internal/access"
	"lanyard.dev/internal/hint"
	"lanyard.dev/internal/rbac/bootstrap"
)

const accessHelp = `Explain an RBAC policy: why a subject may or may not do something, who may do
it, and what a subject may do. The answers come from the engine that authorizes
requests. The commands change nothing.

The policy comes from a Kubernetes cluster, which is selected as by kubectl:
by --kubeconfig, KUBECONFIG, the authority on this machine, or ~/.kube/config.
If you may not list all roles and bindings, the commands read them in one
namespace, and request the API server's own decision if you have the permission.
A note reports which part of the policy the answer covers. With -f, the policy
comes from YAML and JSON files, together with Kubernetes' default roles and
bindings.

A SUBJECT is one of
  sa:NAMESPACE/NAME  a service account; NAMESPACE/NAME and
                     system:serviceaccount:NAMESPACE:NAME mean the same
  user:NAME          a user; --group adds groups of the user
  group:NAME         any member of a group
  node:NAME          a node
and is in the groups that follow from it, such as system:authenticated.

The commands explain RBAC only. Other authorizers of a cluster, such as the node
authorizer or a webhook, may allow more. If you may create a
SubjectAccessReview, the cluster's own decision is the result.`

func newAccess(s streams) *cobra.Command {
	return newGroup("access", "Explain an RBAC policy: who may do what, and why", accessHelp, newAccessExplain(s), newAccessWhoCan(s), newAccessList(s))
}

// accessOptions are the options that all access commands share.
type accessOptions struct {
	streams
	source policySource
	output outputOptions
}

func newAccessOptions(s streams) accessOptions {
	return accessOptions{streams: s, source: policySource{streams: s}}
}

func (o *accessOptions) addFlags(cmd *cobra.Command) {
	o.source.addFlags(cmd)
	o.output.addFlags(cmd, formatTable, formatWide, formatJSON, formatYAML)
}

func (o *accessOptions) validate() error {
	return errors.Join(o.source.validate(), o.output.validate())
}

// subjectOptions select a subject.
type subjectOptions struct {
	groups  []string
	subject access.Subject
}

func (o *subjectOptions) addFlags(cmd *cobra.Command) {
	cmd.Flags().StringArrayVar(&o.groups, "group", nil, "group of the subject besides the implicit ones; may be repeated")
}

// parse parses the argument SUBJECT.
func (o *subjectOptions) parse(text string) (err error) {
	o.subject, err = access.ParseSubject(text, o.groups...)
	return err
}

// targetOptions select a verb, a resource and a namespace.
type targetOptions struct {
	verb, text    string
	namespace     string
	allNamespaces bool
	subresource   string
	flags         *pflag.FlagSet
	name          string
}

func (o *targetOptions) addFlags(cmd *cobra.Command) {
	f := cmd.Flags()
	o.flags = f
	f.StringVarP(&o.namespace, "namespace", "n", "", "namespace of the request (default: the namespace of the kubeconfig's context, or \"default\")")
	f.BoolVarP(&o.allNamespaces, "all-namespaces", "A", false, "the request is for all namespaces")
	f.StringVar(&o.subresource, "subresource", "", "subresource, such as log; the part after the slash of RESOURCE is then a name")
	f.StringVar(&o.name, "name", "", "name of the object; the part after the slash of RESOURCE is then a subresource")
}

func (o *targetOptions) validate() error {
	if o.allNamespaces && o.namespace != "" {
		return errors.New("--all-namespaces and --namespace exclude each other")
	}
	return nil
}

// resolve interprets the resource by the catalog of the policy's source. It adds notes to from.
func (o *targetOptions) resolve(ctx context.Context, from *loadedPolicy) (access.Target, error) {
	spec := access.Spec{Verb: o.verb, Text: o.text, Namespace: from.namespace, Name: o.name}
	if o.allNamespaces {
		spec.Namespace = ""
	}
	if o.flags != nil && o.flags.Changed("subresource") {
		spec.Subresource = &o.subresource
	}
	target, notes, err := from.catalog.Resolve(spec)
	if err != nil {
		return target, err
	}
	if o.namespace != "" && target.Namespace == "" && target.Path == "" {
		notes = append(notes, fmt.Sprintf("%s are not namespaced, so -n has no effect", target.Resource))
	}
	from.notes = append(from.notes, notes...)
	if from.server != nil {
		from.notes = append(from.notes, from.server.targetNotes(ctx, o.verb, &target)...)
	}
	return target, nil
}

// policySource selects where the policy comes from: files if any are named, else a cluster.
type policySource struct {
	streams
	files        []string
	defaultRoles bool
	connection   connection

	defaultRolesFlag *pflag.Flag
	timeout          time.Duration // of each request; 0 means the default
}

// loadedPolicy is a policy with the information to interpret and explain it.
type loadedPolicy struct {
	policy  *access.Policy
	catalog *access.Catalog
	// namespace is the namespace of requests that name no other.
	namespace string
	notes     []string

	// manifests are the content of files. It is nil for a cluster.
	manifests *access.Manifests
	// server is the API server of a cluster. It is nil for files.
	server *server
	// forbidden is the first error of a read that was forbidden. It is nil if the whole policy was read.
	forbidden error
	// whole reports whether everything that applies in namespace was read, noBindings whether no binding could be read.
	whole, noBindings bool
	// assumed names the ClusterRoles that could not be read and are assumed to be Kubernetes' default ones.
	assumed []string
}

// subjectNotes returns a note if the subject does not exist.
func (l *loadedPolicy) subjectNotes(ctx context.Context, s *access.Subject) []string {
	if l.server != nil {
		return l.server.subjectNotes(ctx, s)
	}
	return l.manifests.SubjectNotes(l.policy, s)
}

func (o *policySource) addFlags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringArrayVarP(&o.files, "filename", "f", nil, "YAML or JSON file with roles and bindings, a directory of such files, or - for standard input; may be repeated")
	f.BoolVar(&o.defaultRoles, "default-roles", true, "with -f, add Kubernetes' default roles and bindings, which every cluster has")
	o.defaultRolesFlag = f.Lookup("default-roles")
	o.connection.addFlags(f)
}

func (o *policySource) validate() error {
	var faults []error
	if len(o.files) > 0 && o.connection.named() {
		faults = append(faults, errors.New("-f selects files, but --kubeconfig and --context select a cluster"))
	}
	if len(o.files) == 0 && o.defaultRolesFlag.Changed {
		faults = append(faults, errors.New("--default-roles requires -f: a cluster has its own default roles"))
	}
	if slices.Contains(o.files, "") {
		faults = append(faults, errors.New("-f must not be empty"))
	}
	return errors.Join(faults...)
}

// load reads the policy. namespace may be empty.
func (o *policySource) load(ctx context.Context, namespace string) (*loadedPolicy, error) {
	if len(o.files) == 0 {
		return o.loadCluster(ctx, namespace)
	}
	namespace = cmp.Or(namespace, metav1.NamespaceDefault)
	manifests := access.NewManifests(namespace)
	for _, name := range o.files {
		if err := o.readFile(manifests, name); err != nil {
			return nil, err
		}
	}
	if manifests.Count() == 0 {
		return nil, noPolicyError(manifests)
	}
	if o.defaultRoles {
		manifests.Default(bootstrap.ClusterRoles(), bootstrap.ClusterRoleBindings())
	}
	index, err := manifests.Index()
	if err != nil {
		return nil, err
	}
	loaded := &loadedPolicy{policy: access.New(index), catalog: access.Builtin(), namespace: namespace, manifests: manifests}
	loaded.notes = append(manifests.Notes(), manifests.Lint(loaded.catalog)...)
	loaded.catalog.Learn(loaded.policy)
	return loaded, nil
}

// noPolicyError returns the error of files without policy. It names what the files contain instead.
func noPolicyError(manifests *access.Manifests) error {
	text := "the files contain no roles and no bindings"
	if notes := manifests.Notes(); len(notes) > 0 {
		text += ": " + strings.Join(notes, "; ")
	}
	return hint.New(errors.New(text), "name files with objects of rbac.authorization.k8s.io")
}

func (o *policySource) readFile(manifests *access.Manifests, name string) error {
	if name == "-" {
		return manifests.Read("standard input", o.in)
	}
	info, err := os.Stat(name)
	if err != nil {
		return fmt.Errorf("read policy: %w", err)
	}
	if !info.IsDir() {
		return readPolicyFile(name, manifests.Read)
	}
	found := false
	err = filepath.WalkDir(name, func(path string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return fmt.Errorf("read policy: %w", err)
		case entry.IsDir() && path != name && strings.HasPrefix(entry.Name(), "."):
			return filepath.SkipDir
		case entry.IsDir() || !slices.Contains([]string{".yaml", ".yml", ".json"}, filepath.Ext(path)):
			return nil
		}
		found = true
		if target, err := os.Stat(path); err != nil || !target.Mode().IsRegular() {
			manifests.Skip(path, "not a regular file")
			return nil
		}
		return readPolicyFile(path, manifests.ReadOneOfMany)
	})
	if err == nil && !found {
		return fmt.Errorf("read policy: %s contains no .yaml, .yml or .json files", name)
	}
	return err
}

// readPolicyFile opens a file for read.
func readPolicyFile(name string, read func(name string, in io.Reader) error) error {
	f, err := os.Open(name)
	if err != nil {
		return fmt.Errorf("read policy: %w", err)
	}
	defer f.Close()
	return read(name, f)
}
