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
	"lanyard.dev/internal/rbac"
	"lanyard.dev/internal/rbac/bootstrap"
)

const (
	// pageSize is the number of objects asked for at once.
	pageSize = 500
	// requestWait bounds each request for a part of the policy.
	requestWait = time.Minute
	// maxRoleReads bounds the ClusterRoles that are read one by one.
	maxRoleReads = 200
)

// loadCluster reads the policy of a cluster: all of it or, if the caller may not, what they may read.
func (o *policySource) loadCluster(ctx context.Context, namespace string) (*loadedPolicy, error) {
	client, configured, err := o.connection.config(io.Discard)
	switch {
	case errors.Is(err, errNoServer):
		return nil, withHint(err, hintOf(err)+"; or name files with -f")
	case err != nil:
		return nil, err
	}
	client.QPS, client.Burst = discoveryQPS, discoveryBurst
	client.Timeout = cmp.Or(o.wait, requestWait)
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
	loaded.forbidden, loaded.whole, loaded.nothing = reader.forbidden, reader.whole(), reader.bindings == 0
	loaded.assumed = reader.assumed
	loaded.notes = append(loaded.notes, reader.notes()...)
	return loaded, nil
}

// policyReader reads as much of a cluster's policy as the caller may.
type policyReader struct {
	client    rbacclient.RbacV1Interface
	host      string
	namespace string
	shown     *progress
	index     *rbac.Index

	// forbidden is the first refusal; nil if all of the policy was read.
	forbidden error
	// unread holds the kinds of which nothing could be read, elsewhere those of which only the namespace could.
	unread, elsewhere []string
	// bindings counts the kinds of bindings of which some could be read.
	bindings    int
	roleNames   map[string]bool // ClusterRoles that bindings refer to
	unreadRoles map[rbac.Ref]bool
	assumed     []string // ClusterRoles taken to be the default ones
}

// policyKind is one of the four kinds; list takes a namespace, which is empty for all.
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

// readPolicy lists the four kinds: in all namespaces or, where that is forbidden, in the one asked about.
func (o *policySource) readPolicy(ctx context.Context, config *rest.Config, namespace string) (*policyReader, error) {
	binary := rest.CopyConfig(config)
	binary.ContentType, binary.AcceptContentTypes = runtime.ContentTypeProtobuf, runtime.ContentTypeProtobuf+","+runtime.ContentTypeJSON
	client, err := rbacclient.NewForConfig(binary)
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", config.Host, err)
	}
	r := &policyReader{
		client: client, host: config.Host, namespace: namespace, shown: newProgress(o.err), index: rbac.NewIndex(),
		roleNames: map[string]bool{}, unreadRoles: map[rbac.Ref]bool{},
	}
	defer r.shown.clear()
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
			r.elsewhere = append(r.elsewhere, kind.resource)
		}
	}
	if err == nil && kind.binding {
		r.bindings++
	}
	return err
}

// listAll lists in pages, or all at once when a page comes too late for the server to remember where it was.
func (r *policyReader) listAll(ctx context.Context, resource string, list pager.ListPageFunc) error {
	count := 0
	pages := pager.New(func(ctx context.Context, opts metav1.ListOptions) (runtime.Object, error) {
		page, err := list(ctx, opts)
		if err == nil {
			count += meta.LenList(page)
			r.shown.show(fmt.Sprintf("reading %s: %d", resource, count))
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
		r.refersTo(o.RoleRef)
	case *rbacv1.Role:
		r.index.SetRole(o)
	case *rbacv1.RoleBinding:
		r.index.SetRoleBinding(o)
		r.refersTo(o.RoleRef)
	}
	return nil
}

func (r *policyReader) refersTo(ref rbacv1.RoleRef) {
	if ref.Kind == "ClusterRole" {
		r.roleNames[ref.Name] = true
	}
}

// readRoles reads the ClusterRoles that bindings refer to one by one. One that cannot be read is taken to be Kubernetes'
// default of that name, if there is one.
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

// whole reports whether all was read that counts in the namespace. ClusterRoles may have been read one by one.
func (r *policyReader) whole() bool {
	return len(r.lacking()) == 0 && len(r.unreadRoles)+len(r.assumed) == 0
}

func (r *policyReader) lacking() []string {
	return slices.DeleteFunc(slices.Clone(r.unread), func(what string) bool { return what == "clusterroles" })
}

// notes say what the answers cover.
func (r *policyReader) notes() []string {
	var notes []string
	unread := r.lacking()
	for _, kind := range r.elsewhere {
		unread = append(unread, kind+" outside namespace "+r.namespace)
	}
	if len(unread) > 0 {
		notes = append(notes, "the policy could be read in part only: you may not list "+strings.Join(unread, ", "))
	}
	if len(r.assumed) > 0 {
		slices.Sort(r.assumed)
		notes = append(notes, "these ClusterRoles could not be read and are taken to be Kubernetes' default ones: "+strings.Join(r.assumed, ", "))
	}
	return notes
}

func explainList(resource, host string, err error) error {
	wrapped := fmt.Errorf("list %s of %s: %w", resource, host, err)
	switch {
	case apierrors.IsForbidden(err):
		return withHint(wrapped, "reading a policy takes leave to list roles, rolebindings, clusterroles and clusterrolebindings in all namespaces, or some of it in the one of -n")
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
	groups, lists, err := client.ServerGroupsAndResourcesWithContext(ctx)
	switch {
	case len(lists) == 0:
		return access.Builtin(), []string{fmt.Sprintf("the resources of the cluster are not known: %v", err)}
	case err != nil:
		return access.NewCatalog(groups, lists), []string{fmt.Sprintf("some resources of the cluster are not known: %v", err)}
	}
	return access.NewCatalog(groups, lists), nil
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
