package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"
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
}

// loadedPolicy is a policy, and how to talk about it.
type loadedPolicy struct {
	policy  *access.Policy
	catalog *access.Catalog
	// namespace is the one asked about, if no other is named.
	namespace string
	notes     []string
}

func (o *policySource) addFlags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringArrayVarP(&o.files, "filename", "f", nil, "YAML or JSON file with policy, a directory of them, or - for standard input; may be given more than once")
	f.BoolVar(&o.defaultRoles, "default-roles", false, "with -f, add Kubernetes' default roles and bindings that the files do not define")
	o.connection.addFlags(f)
}

func (o *policySource) validate() error {
	var faults []error
	if len(o.files) > 0 && o.connection.named() {
		faults = append(faults, errors.New("-f reads files, and --kubeconfig and --context name a cluster"))
	}
	if len(o.files) == 0 && o.defaultRoles {
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
		return nil, withHint(errors.New("the files hold no roles and no bindings"), "name files with objects of rbac.authorization.k8s.io")
	}
	notes := manifests.Notes()
	if o.defaultRoles {
		manifests.Default(bootstrap.ClusterRoles(), bootstrap.ClusterRoleBindings())
	} else {
		notes = append(notes, missingDefaults(manifests)...)
	}
	index, err := manifests.Index()
	if err != nil {
		return nil, err
	}
	return &loadedPolicy{policy: access.New(index), catalog: access.Builtin(), namespace: namespace, notes: notes}, nil
}

// missingDefaults tells of default roles that are bound and not defined.
func missingDefaults(manifests *access.Manifests) []string {
	var names []string
	for _, r := range bootstrap.ClusterRoles() {
		if slices.Contains(manifests.Missing(), r.Name) {
			names = append(names, r.Name)
		}
	}
	if len(names) == 0 {
		return nil
	}
	return []string{"bindings refer to default roles of Kubernetes, which --default-roles adds: " + strings.Join(names, ", ")}
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
		return open(manifests, name)
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
		if target, err := os.Stat(path); err != nil || !target.Mode().IsRegular() {
			return err
		}
		found = true
		return open(manifests, path)
	})
	if err == nil && !found {
		return fmt.Errorf("read policy: %s holds no .yaml, .yml or .json files", name)
	}
	return err
}

func open(manifests *access.Manifests, name string) error {
	f, err := os.Open(name)
	if err != nil {
		return fmt.Errorf("read policy: %w", err)
	}
	defer f.Close()
	return manifests.Read(name, f)
}
