package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"

	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	discoveryclient "k8s.io/client-go/discovery"
	rbacclient "k8s.io/client-go/kubernetes/typed/rbac/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/pager"

	"lanyard.dev/internal/access"
	"lanyard.dev/internal/rbac"
)

// pageSize is the number of objects asked for at once.
const pageSize = 500

// loadCluster reads the policy of a cluster.
func (o *policySource) loadCluster(ctx context.Context, namespace string) (*loadedPolicy, error) {
	client, configured, err := o.connection.config(io.Discard)
	switch {
	case errors.Is(err, errNoServer):
		return nil, withHint(err, hintOf(err)+"; or name files with -f")
	case err != nil:
		return nil, err
	}
	client.QPS, client.Burst = discoveryQPS, discoveryBurst
	index, err := o.readPolicy(ctx, client)
	if err != nil {
		return nil, err
	}
	loaded := &loadedPolicy{policy: access.New(index), namespace: cmp.Or(namespace, configured)}
	loaded.catalog, loaded.notes = discoverResources(ctx, client)
	return loaded, nil
}

// readPolicy lists the four kinds.
func (o *policySource) readPolicy(ctx context.Context, config *rest.Config) (*rbac.Index, error) {
	binary := rest.CopyConfig(config)
	binary.ContentType, binary.AcceptContentTypes = runtime.ContentTypeProtobuf, runtime.ContentTypeProtobuf+","+runtime.ContentTypeJSON
	client, err := rbacclient.NewForConfig(binary)
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", config.Host, err)
	}
	index, shown := rbac.NewIndex(), newProgress(o.err)
	defer shown.clear()
	for _, kind := range []struct {
		resource string
		list     pager.ListPageFunc
	}{
		{"clusterroles", func(ctx context.Context, opts metav1.ListOptions) (runtime.Object, error) {
			return client.ClusterRoles().List(ctx, opts)
		}},
		{"clusterrolebindings", func(ctx context.Context, opts metav1.ListOptions) (runtime.Object, error) {
			return client.ClusterRoleBindings().List(ctx, opts)
		}},
		{"roles", func(ctx context.Context, opts metav1.ListOptions) (runtime.Object, error) {
			return client.Roles(metav1.NamespaceAll).List(ctx, opts)
		}},
		{"rolebindings", func(ctx context.Context, opts metav1.ListOptions) (runtime.Object, error) {
			return client.RoleBindings(metav1.NamespaceAll).List(ctx, opts)
		}},
	} {
		if err := readKind(ctx, index, shown, kind.resource, kind.list); err != nil {
			return nil, explainList(kind.resource, config.Host, err)
		}
	}
	return index, nil
}

// readKind lists in pages, or all at once when a page comes too late for the
// server to remember where it was.
func readKind(ctx context.Context, index *rbac.Index, shown *progress, resource string, list pager.ListPageFunc) error {
	count := 0
	pages := pager.New(func(ctx context.Context, opts metav1.ListOptions) (runtime.Object, error) {
		page, err := list(ctx, opts)
		if err == nil {
			count += meta.LenList(page)
			shown.show(fmt.Sprintf("reading %s: %d", resource, count))
		}
		return page, err
	})
	pages.PageSize = pageSize
	all, _, err := pages.List(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	return meta.EachListItem(all, func(obj runtime.Object) error {
		switch o := obj.(type) {
		case *rbacv1.ClusterRole:
			index.SetClusterRole(o)
		case *rbacv1.ClusterRoleBinding:
			index.SetClusterRoleBinding(o)
		case *rbacv1.Role:
			index.SetRole(o)
		case *rbacv1.RoleBinding:
			index.SetRoleBinding(o)
		}
		return nil
	})
}

func explainList(resource, host string, err error) error {
	wrapped := fmt.Errorf("list %s of %s: %w", resource, host, err)
	switch {
	case apierrors.IsForbidden(err):
		return withHint(wrapped, "reading a policy takes leave to list roles, rolebindings, clusterroles and clusterrolebindings in all namespaces")
	case apierrors.IsUnauthorized(err):
		return withHint(wrapped, "the kubeconfig's credentials do not hold: renew them, or name another with --kubeconfig or --context")
	}
	return wrapped
}

// discoverResources asks the cluster what it serves. What it does not say is
// filled in from what is known anyway.
func discoverResources(ctx context.Context, config *rest.Config) (*access.Catalog, []string) {
	client, err := discoveryclient.NewDiscoveryClientForConfig(config)
	if err != nil {
		return access.Builtin(), []string{fmt.Sprintf("the resources of the cluster are not known: %v", err)}
	}
	_, lists, err := client.ServerGroupsAndResourcesWithContext(ctx)
	switch {
	case len(lists) == 0:
		return access.Builtin(), []string{fmt.Sprintf("the resources of the cluster are not known: %v", err)}
	case err != nil:
		return access.NewCatalog(lists), []string{fmt.Sprintf("some resources of the cluster are not known: %v", err)}
	}
	return access.NewCatalog(lists), nil
}

// progress is one line on a terminal that says what is going on, and nothing
// where no one watches.
type progress struct{ w io.Writer }

func newProgress(w io.Writer) *progress {
	if !writesToTerminal(w) {
		return &progress{}
	}
	return &progress{w: w}
}

func (p *progress) show(text string) {
	if p.w != nil {
		fmt.Fprintf(p.w, "\r\x1b[K%s", text)
	}
}

func (p *progress) clear() { p.show("") }
