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
	"lanyard.dev/internal/rbac/bootstrap"
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

// policySource is where a policy comes from: files if any are named, else a
// cluster.
type policySource struct {
	streams
	files        []string
	defaultRoles bool
	connection   connection

	defaultRolesFlag *pflag.Flag
	wait             time.Duration // for each request; 0 for the default
}

// loadedPolicy is a policy, and how to talk about it.
type loadedPolicy struct {
	policy  *access.Policy
	catalog *access.Catalog
	// namespace is the one asked about, if no other is named.
	namespace string
	notes     []string

	// manifests are what files hold; nil for a cluster.
	manifests *access.Manifests
	// server is the cluster's; nil for files.
	server *server
	// forbidden is why not all of the policy could be read; nil if it was. whole is set where all was that counts in the
	// namespace, nothing where no binding could be.
	forbidden      error
	whole, nothing bool
	// assumed names the ClusterRoles that could not be read and are taken to be Kubernetes' default ones.
	assumed []string
}

// subjectNotes says so if the subject does not exist.
func (l *loadedPolicy) subjectNotes(ctx context.Context, s *access.Subject) []string {
	if l.server != nil {
		return l.server.subjectNotes(ctx, s)
	}
	return l.manifests.SubjectNotes(l.policy, s)
}

func (o *policySource) addFlags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringArrayVarP(&o.files, "filename", "f", nil, "YAML or JSON file with policy, a directory of them, or - for standard input; may be given more than once")
	f.BoolVar(&o.defaultRoles, "default-roles", true, "with -f, let Kubernetes' default roles and bindings count besides, as in any cluster")
	o.defaultRolesFlag = f.Lookup("default-roles")
	o.connection.addFlags(f)
}

func (o *policySource) validate() error {
	var faults []error
	if len(o.files) > 0 && o.connection.named() {
		faults = append(faults, errors.New("-f reads files, and --kubeconfig and --context name a cluster"))
	}
	if len(o.files) == 0 && o.defaultRolesFlag.Changed {
		faults = append(faults, errors.New("--default-roles is for files: a cluster has its own"))
	}
	if slices.Contains(o.files, "") {
		faults = append(faults, errors.New("-f must not be empty"))
	}
	return errors.Join(faults...)
}

// load reads the policy. namespace is the one named, or empty.
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
		return nil, noPolicy(manifests)
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

// noPolicy says that there is no policy in the files, and what is there instead.
func noPolicy(manifests *access.Manifests) error {
	text := "the files hold no roles and no bindings"
	if notes := manifests.Notes(); len(notes) > 0 {
		text += ": " + strings.Join(notes, "; ")
	}
	return withHint(errors.New(text), "name files with objects of rbac.authorization.k8s.io")
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
		return open(name, manifests.Read)
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
		return open(path, manifests.ReadOneOfMany)
	})
	if err == nil && !found {
		return fmt.Errorf("read policy: %s holds no .yaml, .yml or .json files", name)
	}
	return err
}

// open lets read have a file.
func open(name string, read func(name string, in io.Reader) error) error {
	f, err := os.Open(name)
	if err != nil {
		return fmt.Errorf("read policy: %w", err)
	}
	defer f.Close()
	return read(name, f)
}
