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
