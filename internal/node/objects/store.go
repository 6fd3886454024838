package objects

import (
	"context"
	"sync"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/tools/cache"

	"lanyard.dev/internal/nodeaccess"
)

// Client reads what pods name. Every kubernetes.Interface has one: CoreV1().
type Client interface {
	typedcorev1.SecretsGetter
	typedcorev1.ConfigMapsGetter
	typedcorev1.ServiceAccountsGetter
}

// Store keeps the objects that pods hold.
type Store struct {
	secrets    *shelf[*corev1.Secret]
	configMaps *shelf[*corev1.ConfigMap]
	accounts   *shelf[*corev1.ServiceAccount]

	mu sync.Mutex
	// pods holds what each pod holds.
	pods      map[types.UID]map[key]bool
	listeners []func(namespace string, changed nodeaccess.Reference)
}

// key names an object.
type key struct {
	namespace string
	nodeaccess.Reference
}

// New returns a store without any object. Its watches end with ctx.
func New(ctx context.Context, client Client) *Store {
	s := &Store{pods: map[types.UID]map[key]bool{}}
	s.secrets = newShelf(ctx, secrets{client}, s.tell)
	s.configMaps = newShelf(ctx, configMaps{client}, s.tell)
	s.accounts = newShelf(ctx, accounts{client}, s.tell)
	return s
}

// OnChange has f told of every object that a pod holds and that came, changed or went. f must not block.
func (s *Store) OnChange(f func(namespace string, changed nodeaccess.Reference)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.listeners = append(s.listeners, f)
}

func (s *Store) tell(k key) {
	s.mu.Lock()
	listeners := s.listeners
	s.mu.Unlock()
	for _, f := range listeners {
		f(k.namespace, k.Reference)
	}
}

// Hold keeps every secret, config map and service account that the pod names until Release. Called again, it takes the pod as it is now.
func (s *Store) Hold(pod *corev1.Pod) {
	wanted := map[key]bool{}
	for _, ref := range nodeaccess.References(pod) {
		wanted[key{pod.Namespace, ref}] = true
	}
	s.hold(pod.UID, wanted)
}

// Release ends what Hold began.
func (s *Store) Release(pod types.UID) { s.hold(pod, nil) }

func (s *Store) hold(pod types.UID, wanted map[key]bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	had := s.pods[pod]
	for k := range wanted {
		if !had[k] {
			s.keeper(k).hold(k, pod)
		}
	}
	for k := range had {
		if !wanted[k] {
			s.keeper(k).release(k, pod)
		}
	}
	s.pods[pod] = wanted
	if len(wanted) == 0 {
		delete(s.pods, pod)
	}
}

type keeper interface {
	hold(k key, pod types.UID)
	release(k key, pod types.UID)
}

func (s *Store) keeper(k key) keeper {
	switch k.Kind {
	case nodeaccess.Secret:
		return s.secrets
	case nodeaccess.ServiceAccount:
		return s.accounts
	}
	return s.configMaps
}

// Account returns the UID of a service account that a pod holds, as last seen, or "" if it is not known or does not exist.
func (s *Store) Account(namespace, name string) types.UID {
	c := s.accounts.find(key{namespace, nodeaccess.Reference{Kind: nodeaccess.ServiceAccount, Name: name}})
	if c == nil {
		return ""
	}
	if account, ok := c.get(); ok {
		return account.UID
	}
	return ""
}

// Secret returns a secret, which must not be changed: the one last seen if a pod holds it, else as the authority has it.
// What does not exist is an apierrors.IsNotFound error.
func (s *Store) Secret(ctx context.Context, namespace, name string) (*corev1.Secret, error) {
	return s.secrets.read(ctx, key{namespace, nodeaccess.Reference{Kind: nodeaccess.Secret, Name: name}})
}

// ConfigMap is Secret for config maps.
func (s *Store) ConfigMap(ctx context.Context, namespace, name string) (*corev1.ConfigMap, error) {
	return s.configMaps.read(ctx, key{namespace, nodeaccess.Reference{Kind: nodeaccess.ConfigMap, Name: name}})
}

// source is where objects of one kind come from.
type source[T object] interface {
	// name is the kind's in messages, as kubelets write it.
	name() string
	example() T
	get(ctx context.Context, namespace, name string) (T, error)
	listWatch(namespace string, choose func(*metav1.ListOptions)) *cache.ListWatch
	immutable(T) bool
}

type secrets struct{ client Client }

func (secrets) name() string                    { return "secret" }
func (secrets) example() *corev1.Secret         { return &corev1.Secret{} }
func (secrets) immutable(o *corev1.Secret) bool { return o.Immutable != nil && *o.Immutable }

func (s secrets) get(ctx context.Context, namespace, name string) (*corev1.Secret, error) {
	return s.client.Secrets(namespace).Get(ctx, name, metav1.GetOptions{})
}

func (s secrets) listWatch(namespace string, choose func(*metav1.ListOptions)) *cache.ListWatch {
	return &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			choose(&o)
			return s.client.Secrets(namespace).List(ctx, o)
		},
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			choose(&o)
			return s.client.Secrets(namespace).Watch(ctx, o)
		},
	}
}

type configMaps struct{ client Client }

func (configMaps) name() string                       { return "configmap" }
func (configMaps) example() *corev1.ConfigMap         { return &corev1.ConfigMap{} }
func (configMaps) immutable(o *corev1.ConfigMap) bool { return o.Immutable != nil && *o.Immutable }

func (c configMaps) get(ctx context.Context, namespace, name string) (*corev1.ConfigMap, error) {
	return c.client.ConfigMaps(namespace).Get(ctx, name, metav1.GetOptions{})
}

func (c configMaps) listWatch(namespace string, choose func(*metav1.ListOptions)) *cache.ListWatch {
	return &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			choose(&o)
			return c.client.ConfigMaps(namespace).List(ctx, o)
		},
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			choose(&o)
			return c.client.ConfigMaps(namespace).Watch(ctx, o)
		},
	}
}

type accounts struct{ client Client }

func (accounts) name() string                          { return "serviceaccount" }
func (accounts) example() *corev1.ServiceAccount       { return &corev1.ServiceAccount{} }
func (accounts) immutable(*corev1.ServiceAccount) bool { return false }

func (a accounts) get(ctx context.Context, namespace, name string) (*corev1.ServiceAccount, error) {
	return a.client.ServiceAccounts(namespace).Get(ctx, name, metav1.GetOptions{})
}

func (a accounts) listWatch(namespace string, choose func(*metav1.ListOptions)) *cache.ListWatch {
	return &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			choose(&o)
			return a.client.ServiceAccounts(namespace).List(ctx, o)
		},
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			choose(&o)
			return a.client.ServiceAccounts(namespace).Watch(ctx, o)
		},
	}
}
