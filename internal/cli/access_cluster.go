package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

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
	"lanyard.dev/internal/hint"
	"lanyard.dev/internal/rbac"
	"lanyard.dev/internal/rbac/bootstrap"
)

const (
	// pageSize is the number of objects in a page of a list.
	pageSize = 500
	// policyTimeout bounds each request for a part of the policy.
	policyTimeout = time.Minute
	// maxRoleReads bounds the number of ClusterRoles that are read one by one.
	maxRoleReads = 200
)

// loadCluster reads the policy of a cluster, or the part of it that the caller may read.
func (o *policySource) loadCluster(ctx context.Context, namespace string) (*loadedPolicy, error) {
	client, configured, err := o.connection.config(io.Discard)
	switch {
	case errors.Is(err, errNoServer):
		return nil, hint.New(err, hint.Of(err)+"; or name files with -f")
	case err != nil:
		return nil, err
	}
	client.QPS, client.Burst = discoveryQPS, discoveryBurst
	client.Timeout = cmp.Or(o.timeout, policyTimeout)
	loaded := &loadedPolicy{namespace: cmp.Or(namespace, configured)}
	reader, err := o.readPolicy(ctx, client, loaded.namespace)
	if err != nil {
		return nil, err
	}
	if loaded.server, err = newServer(client); err != nil {
		return nil, err
	}
	loaded.policy = access.WithUnread(reader.index, reader.unreadRoles)
	loaded.catalog, loaded.notes = discoverResources(ctx, client)
	loaded.catalog.Learn(loaded.policy)
	loaded.forbidden, loaded.whole, loaded.noBindings = reader.forbidden, reader.whole(), reader.bindings == 0
	loaded.assumed = reader.assumed
	loaded.notes = append(loaded.notes, reader.notes()...)
	return loaded, nil
}

// policyReader reads the part of a cluster's policy that the caller may read.
type policyReader struct {
	client    rbacclient.RbacV1Interface
	host      string
	namespace string
	progress  *progress
	index     *rbac.Index

	// forbidden is the first error of a read that was forbidden. It is nil if the whole policy was read.
	forbidden error
	// unread are the resources of which nothing could be read, namespaceOnly those that could be read in the namespace only.
	unread, namespaceOnly []string
	// bindings is the number of kinds of bindings that could be read, at least in the namespace.
	bindings    int
	roleNames   map[string]bool // ClusterRoles to which bindings refer
	unreadRoles map[rbac.Ref]bool
	assumed     []string // ClusterRoles that are assumed to be the default ones
}

// policyKind is one of the four RBAC resources. list lists a namespace, or all namespaces if that is empty.
type policyKind struct {
	resource   string
	namespaced bool
	binding    bool
	list       func(namespace string) pager.ListPageFunc
}

func (r *policyReader) kinds() []policyKind {
	return []policyKind{
		{"clusterroles", false, false, func(string) pager.ListPageFunc {
			return func(ctx context.Context, opts metav1.ListOptions) (runtime.Object, error) {
				return r.client.ClusterRoles().List(ctx, opts)
			}
		}},
		{"clusterrolebindings", false, true, func(string) pager.ListPageFunc {
			return func(ctx context.Context, opts metav1.ListOptions) (runtime.Object, error) {
				return r.client.ClusterRoleBindings().List(ctx, opts)
			}
		}},
		{"roles", true, false, func(namespace string) pager.ListPageFunc {
			return func(ctx context.Context, opts metav1.ListOptions) (runtime.Object, error) {
				return r.client.Roles(namespace).List(ctx, opts)
			}
		}},
		{"rolebindings", true, true, func(namespace string) pager.ListPageFunc {
			return func(ctx context.Context, opts metav1.ListOptions) (runtime.Object, error) {
				return r.client.RoleBindings(namespace).List(ctx, opts)
			}
		}},
	}
}

// readPolicy lists the four resources in all namespaces or, where that is forbidden, in one.
func (o *policySource) readPolicy(ctx context.Context, config *rest.Config, namespace string) (*policyReader, error) {
	binary := rest.CopyConfig(config)
	binary.ContentType, binary.AcceptContentTypes = runtime.ContentTypeProtobuf, runtime.ContentTypeProtobuf+","+runtime.ContentTypeJSON
	client, err := rbacclient.NewForConfig(binary)
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", config.Host, err)
	}
	r := &policyReader{
		client: client, host: config.Host, namespace: namespace, progress: newProgress(o.err), index: rbac.NewIndex(),
		roleNames: map[string]bool{}, unreadRoles: map[rbac.Ref]bool{},
	}
	defer r.progress.clear()
	for _, kind := range r.kinds() {
		if err := r.readKind(ctx, kind); err != nil {
			return nil, explainList(kind.resource, config.Host, err)
		}
	}
	if slices.Contains(r.unread, "clusterroles") {
		return r, r.readRoles(ctx)
	}
	return r, nil
}

func (r *policyReader) readKind(ctx context.Context, kind policyKind) error {
	err := r.listAll(ctx, kind.resource, kind.list(metav1.NamespaceAll))
	if apierrors.IsForbidden(err) {
		if r.forbidden == nil {
			r.forbidden = explainList(kind.resource, r.host, err)
		}
		if kind.namespaced {
			err = r.listAll(ctx, kind.resource, kind.list(r.namespace))
		}
		if apierrors.IsForbidden(err) {
			r.unread = append(r.unread, kind.resource)
			return nil
		}
		if err == nil {
			r.namespaceOnly = append(r.namespaceOnly, kind.resource)
		}
	}
	if err == nil && kind.binding {
		r.bindings++
	}
	return err
}

// listAll lists in pages. If the continue token of a page has expired, the pager lists everything at once.
func (r *policyReader) listAll(ctx context.Context, resource string, list pager.ListPageFunc) error {
	count := 0
	pages := pager.New(func(ctx context.Context, opts metav1.ListOptions) (runtime.Object, error) {
		page, err := list(ctx, opts)
		if err == nil {
			count += meta.LenList(page)
			r.progress.show(fmt.Sprintf("reading %s: %d", resource, count))
		}
		return page, err
	})
	pages.PageSize = pageSize
	all, _, err := pages.List(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	return meta.EachListItem(all, r.add)
}

func (r *policyReader) add(obj runtime.Object) error {
	switch o := obj.(type) {
	case *rbacv1.ClusterRole:
		r.index.SetClusterRole(o)
	case *rbacv1.ClusterRoleBinding:
		r.index.SetClusterRoleBinding(o)
		r.noteRole(o.RoleRef)
	case *rbacv1.Role:
		r.index.SetRole(o)
	case *rbacv1.RoleBinding:
		r.index.SetRoleBinding(o)
		r.noteRole(o.RoleRef)
	}
	return nil
}

func (r *policyReader) noteRole(ref rbacv1.RoleRef) {
	if ref.Kind == "ClusterRole" {
		r.roleNames[ref.Name] = true
	}
}

// readRoles reads one by one the ClusterRoles to which bindings refer. If the caller may not read one, readRoles assumes that
// it is Kubernetes' default role of that name, if there is one.
func (r *policyReader) readRoles(ctx context.Context) error {
	defaults := map[string]*rbacv1.ClusterRole{}
	for _, role := range bootstrap.ClusterRoles() {
		defaults[role.Name] = role
	}
	reads := 0
	for name := range r.roleNames {
		err := error(apierrors.NewForbidden(rbacv1.Resource("clusterroles"), name, nil))
		var role *rbacv1.ClusterRole
		if reads++; reads <= maxRoleReads {
			role, err = r.client.ClusterRoles().Get(ctx, name, metav1.GetOptions{})
		}
		switch {
		case err == nil:
			r.index.SetClusterRole(role)
		case apierrors.IsNotFound(err):
		case !apierrors.IsForbidden(err):
			return fmt.Errorf("get clusterrole %s of %s: %w", name, r.host, err)
		case defaults[name] != nil:
			r.index.SetClusterRole(defaults[name])
			r.assumed = append(r.assumed, name)
		default:
			r.unreadRoles[rbac.Ref{Kind: rbac.ClusterRole, Name: name}] = true
		}
	}
	return nil
}

// whole reports whether everything was read that applies in the namespace. ClusterRoles may have been read one by one.
func (r *policyReader) whole() bool {
	return len(r.unreadExceptRoles()) == 0 && len(r.unreadRoles)+len(r.assumed) == 0
}

// unreadExceptRoles returns the resources that could not be read. It leaves out ClusterRoles, which are read one by one then.
func (r *policyReader) unreadExceptRoles() []string {
	return slices.DeleteFunc(slices.Clone(r.unread), func(what string) bool { return what == "clusterroles" })
}

// notes returns notes about the parts of the policy that were not read.
func (r *policyReader) notes() []string {
	var notes []string
	unread := r.unreadExceptRoles()
	for _, kind := range r.namespaceOnly {
		unread = append(unread, kind+" outside namespace "+r.namespace)
	}
	if len(unread) > 0 {
		notes = append(notes, "the policy could be read in part only: you may not list "+strings.Join(unread, ", "))
	}
	if len(r.assumed) > 0 {
		slices.Sort(r.assumed)
		notes = append(notes, "these ClusterRoles could not be read and are assumed to be Kubernetes' default ones: "+strings.Join(r.assumed, ", "))
	}
	return notes
}

func explainList(resource, host string, err error) error {
	wrapped := fmt.Errorf("list %s of %s: %w", resource, host, err)
	switch {
	case apierrors.IsForbidden(err):
		return hint.New(wrapped, "to read a policy, you need the permission to list roles, rolebindings, clusterroles and clusterrolebindings in all namespaces, or some of them in the namespace of -n")
	case apierrors.IsUnauthorized(err):
		return hint.New(wrapped, "the credentials in the kubeconfig are not accepted: renew them, or select others with --kubeconfig or --context")
	}
	return wrapped
}

// discoverResources returns the resources that the cluster serves. It adds built-in knowledge if discovery fails.
func discoverResources(ctx context.Context, config *rest.Config) (*access.Catalog, []string) {
	client, err := discoveryclient.NewDiscoveryClientForConfig(config)
	if err != nil {
		return access.Builtin(), []string{fmt.Sprintf("the resources of the cluster are unknown: %v", err)}
	}
	groups, lists, err := client.ServerGroupsAndResourcesWithContext(ctx)
	switch {
	case len(lists) == 0:
		return access.Builtin(), []string{fmt.Sprintf("the resources of the cluster are unknown: %v", err)}
	case err != nil:
		return access.NewCatalog(groups, lists), []string{fmt.Sprintf("some resources of the cluster are unknown: %v", err)}
	}
	return access.NewCatalog(groups, lists), nil
}

// progress shows one line on a terminal. If the writer is not a terminal, it shows nothing.
type progress struct{ w io.Writer }

func newProgress(w io.Writer) *progress {
	if !isTerminal(w) {
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
