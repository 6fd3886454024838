package objects

import (
	"context"
	"sync"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"

	"lanyard.dev/internal/nodeaccess"
)

// Store keeps the objects that pods hold.
type Store struct {
	secrets    *collection[*corev1.Secret]
	configMaps *collection[*corev1.ConfigMap]
	accounts   *collection[*corev1.ServiceAccount]

	mu        sync.Mutex
	held      map[types.UID]map[key]bool // by pod
	listeners []func(namespace string, changed nodeaccess.Reference)
}

// key identifies an object.
type key struct {
	namespace string
	nodeaccess.Reference
}

// New returns an empty Store. Its watches end with ctx.
func New(ctx context.Context, client typedcorev1.CoreV1Interface) *Store {
	s := &Store{held: map[types.UID]map[key]bool{}}
	s.secrets = newCollection(ctx, client.RESTClient(), resource[*corev1.Secret]{
		kind: "secret", plural: "secrets", example: &corev1.Secret{},
		get: func(ctx context.Context, namespace, name string) (*corev1.Secret, error) {
			return client.Secrets(namespace).Get(ctx, name, metav1.GetOptions{})
		},
		isImmutable: func(o *corev1.Secret) bool { return o.Immutable != nil && *o.Immutable },
	}, s.notify)
	s.configMaps = newCollection(ctx, client.RESTClient(), resource[*corev1.ConfigMap]{
		kind: "configmap", plural: "configmaps", example: &corev1.ConfigMap{},
		get: func(ctx context.Context, namespace, name string) (*corev1.ConfigMap, error) {
			return client.ConfigMaps(namespace).Get(ctx, name, metav1.GetOptions{})
		},
		isImmutable: func(o *corev1.ConfigMap) bool { return o.Immutable != nil && *o.Immutable },
	}, s.notify)
	s.accounts = newCollection(ctx, client.RESTClient(), resource[*corev1.ServiceAccount]{
		kind: "serviceaccount", plural: "serviceaccounts", example: &corev1.ServiceAccount{},
		get: func(ctx context.Context, namespace, name string) (*corev1.ServiceAccount, error) {
			return client.ServiceAccounts(namespace).Get(ctx, name, metav1.GetOptions{})
		},
		isImmutable: func(*corev1.ServiceAccount) bool { return false },
	}, s.notify)
	return s
}

// OnChange registers f, which is called after each creation, change and deletion of an object that a pod holds. f must not
// block.
func (s *Store) OnChange(f func(namespace string, changed nodeaccess.Reference)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.listeners = append(s.listeners, f)
}

func (s *Store) notify(k key) {
	s.mu.Lock()
	listeners := s.listeners
	s.mu.Unlock()
	for _, f := range listeners {
		f(k.namespace, k.Reference)
	}
}

// Hold keeps every secret, config map and service account that the pod names until Release. A second call for the same pod
// replaces what the pod holds.
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
	held := s.held[pod]
	for k := range wanted {
		if !held[k] {
			s.collectionOf(k).hold(k, pod)
		}
	}
	for k := range held {
		if !wanted[k] {
			s.collectionOf(k).release(k, pod)
		}
	}
	s.held[pod] = wanted
	if len(wanted) == 0 {
		delete(s.held, pod)
	}
}

// holder is a collection of any type of object.
type holder interface {
	hold(k key, pod types.UID)
	release(k key, pod types.UID)
}

func (s *Store) collectionOf(k key) holder {
	switch k.Kind {
	case nodeaccess.Secret:
		return s.secrets
	case nodeaccess.ServiceAccount:
		return s.accounts
	}
	return s.configMaps
}

// Account returns the UID of a service account that a pod holds, as last seen. It returns "" if the account does not exist,
// or if it is not known whether it exists.
func (s *Store) Account(namespace, name string) types.UID {
	o := s.accounts.find(key{namespace, nodeaccess.Reference{Kind: nodeaccess.ServiceAccount, Name: name}})
	if o == nil {
		return ""
	}
	if account, ok := o.get(); ok {
		return account.UID
	}
	return ""
}

// Secret returns a secret, which the caller must not change: as last seen if a pod holds it, otherwise as the authority
// returns it. If the secret does not exist, the error is apierrors.IsNotFound.
func (s *Store) Secret(ctx context.Context, namespace, name string) (*corev1.Secret, error) {
	return s.secrets.read(ctx, key{namespace, nodeaccess.Reference{Kind: nodeaccess.Secret, Name: name}})
}

// ConfigMap does for config maps what Secret does for secrets.
func (s *Store) ConfigMap(ctx context.Context, namespace, name string) (*corev1.ConfigMap, error) {
	return s.configMaps.read(ctx, key{namespace, nodeaccess.Reference{Kind: nodeaccess.ConfigMap, Name: name}})
}
