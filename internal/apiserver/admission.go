package apiserver

import (
	"context"
	"sync"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/apis/meta/internalversion"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	libraryadmission "k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/apiserver/pkg/registry/rest"

	"lanyard.dev/internal/apiserver/admission"
	"lanyard.dev/internal/apiserver/admission/podsecurity"
)

// newAdmission returns the admission plugins. defaults is the Pod Security Standard of namespaces whose labels choose
// none. soleWriter is whether no other process writes to storage: namespaces are then read from memory.
func newAdmission(all *storage, p policy, i identity, defaults *podsecurity.Configuration, soleWriter bool) (libraryadmission.Interface, error) {
	s := all.stores
	namespace := s.namespace
	if soleWriter {
		memory := &namespaces{read: s.namespace, known: map[string]*corev1.Namespace{}}
		all.feed("namespaces").Listen(memory)
		namespace = memory.find
	}
	return admission.New(admission.Config{
		Namespace: namespace, Account: s.serviceAccount, Pod: s.pod, Node: s.node, Pods: s.podsIn, Rules: s.rules,
		Authorizer: p.authorizer, Permissions: p.index, Admits: i.evictions.AdmitsUser, Audiences: i.audiences, PodSecurity: defaults,
	})
}

// namespaces are the namespaces that a feed has delivered. It is a mirror.Listener. Nearly every request that creates an object
// reads its namespace.
type namespaces struct {
	// read reads a namespace that is not known.
	read func(ctx context.Context, name string) (*corev1.Namespace, error)

	mu    sync.RWMutex
	known map[string]*corev1.Namespace
}

// Set implements mirror.Listener.
func (n *namespaces) Set(obj runtime.Object) {
	namespace, ok := obj.DeepCopyObject().(*corev1.Namespace)
	if !ok {
		return
	}
	namespace.ManagedFields = nil
	n.mu.Lock()
	defer n.mu.Unlock()
	n.known[namespace.Name] = namespace
}

// Delete implements mirror.Listener.
func (n *namespaces) Delete(obj runtime.Object) {
	m, err := meta.Accessor(obj)
	if err != nil {
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.known, m.GetName())
}

// find returns a namespace, which the caller must not change.
func (n *namespaces) find(ctx context.Context, name string) (*corev1.Namespace, error) {
	n.mu.RLock()
	namespace, ok := n.known[name]
	n.mu.RUnlock()
	if ok {
		return namespace, nil
	}
	return n.read(ctx, name)
}

// The following methods read objects for admission and authorization. If an object is missing, the error of a store names the
// resource of the request in ctx. That is another resource here, so these methods name the resource that they read.

func (s *stores) namespace(ctx context.Context, name string) (*corev1.Namespace, error) {
	return get[*corev1.Namespace](ctx, s.namespaces, corev1.Resource("namespaces"), metav1.NamespaceNone, name)
}

func (s *stores) serviceAccount(ctx context.Context, namespace, name string) (*corev1.ServiceAccount, error) {
	return get[*corev1.ServiceAccount](ctx, s.serviceAccounts, corev1.Resource("serviceaccounts"), namespace, name)
}

func (s *stores) pod(ctx context.Context, namespace, name string) (*corev1.Pod, error) {
	return get[*corev1.Pod](ctx, s.pods, corev1.Resource("pods"), namespace, name)
}

func (s *stores) node(ctx context.Context, name string) (*corev1.Node, error) {
	return get[*corev1.Node](ctx, s.nodes, corev1.Resource("nodes"), metav1.NamespaceNone, name)
}

// rules returns the rules of a role of the given kind.
func (s *stores) rules(ctx context.Context, kind, namespace, name string) ([]rbacv1.PolicyRule, error) {
	if kind == "ClusterRole" {
		role, err := get[*rbacv1.ClusterRole](ctx, s.clusterRoles, rbacv1.Resource("clusterroles"), metav1.NamespaceNone, name)
		if err != nil {
			return nil, err
		}
		return role.Rules, nil
	}
	role, err := get[*rbacv1.Role](ctx, s.roles, rbacv1.Resource("roles"), namespace, name)
	if err != nil {
		return nil, err
	}
	return role.Rules, nil
}

func get[T runtime.Object](ctx context.Context, store rest.Getter, resource schema.GroupResource, namespace, name string) (T, error) {
	var none T
	found, err := store.Get(request.WithNamespace(ctx, namespace), name, &metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		return none, apierrors.NewNotFound(resource, name)
	case err != nil:
		return none, err
	}
	return found.(T), nil
}

// podsIn returns the pods of a namespace.
func (s *stores) podsIn(ctx context.Context, namespace string) ([]*corev1.Pod, error) {
	list, err := s.pods.List(request.WithNamespace(ctx, namespace), &internalversion.ListOptions{})
	if err != nil {
		return nil, err
	}
	items := list.(*corev1.PodList).Items
	found := make([]*corev1.Pod, len(items))
	for i := range items {
		found[i] = &items[i]
	}
	return found, nil
}
