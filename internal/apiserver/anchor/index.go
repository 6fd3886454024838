package anchor

import (
	"context"
	"sync"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"

	"lanyard.dev/internal/token"
)

// Source tells whether what an index remembers may be trusted now.
type Source interface {
	// Fresh returns an error when the memory may be behind other replicas for too long.
	Fresh() error
}

// Read returns the object as storage has it now; found is false where storage has none.
type Read func(ctx context.Context, name types.NamespacedName) (obj runtime.Object, found bool, err error)

// Index remembers the anchors of one resource. It is a mirror.Listener.
type Index struct {
	source Source
	read   Read

	mu      sync.RWMutex
	anchors map[types.NamespacedName]token.Anchor
}

// NewIndex returns an empty index. read may be nil where this process is the only writer.
func NewIndex(source Source, read Read) *Index {
	return &Index{source: source, read: read, anchors: map[types.NamespacedName]token.Anchor{}}
}

// Set implements mirror.Listener.
func (x *Index) Set(obj runtime.Object) {
	name, anchor, ok := describe(obj)
	if !ok {
		return
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	x.anchors[name] = anchor
}

// Delete implements mirror.Listener.
func (x *Index) Delete(obj runtime.Object) {
	name, _, ok := describe(obj)
	if !ok {
		return
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	delete(x.anchors, name)
}

// Find returns the anchor of that name as it was told last. The error says that neither answer could be trusted.
func (x *Index) Find(_ context.Context, namespace, name string) (token.Anchor, bool, error) {
	if err := x.source.Fresh(); err != nil {
		return token.Anchor{}, false, err
	}
	key := types.NamespacedName{Namespace: namespace, Name: name}
	x.mu.RLock()
	anchor, ok := x.anchors[key]
	x.mu.RUnlock()
	return anchor, ok, nil
}

func describe(obj runtime.Object) (types.NamespacedName, token.Anchor, bool) {
	m, err := meta.Accessor(obj)
	if err != nil {
		return types.NamespacedName{}, token.Anchor{}, false
	}
	anchor := token.Anchor{UID: string(m.GetUID())}
	if at := m.GetDeletionTimestamp(); at != nil {
		anchor.DeletionTimestamp = at.Time
	}
	if pod, ok := obj.(*corev1.Pod); ok {
		anchor.ServiceAccountName, anchor.NodeName = pod.Spec.ServiceAccountName, pod.Spec.NodeName
	}
	return types.NamespacedName{Namespace: m.GetNamespace(), Name: m.GetName()}, anchor, true
}

// current returns Find, or where other replicas write what reads storage itself.
func (x *Index) current() finder {
	if x.read == nil {
		return x.Find
	}
	return func(ctx context.Context, namespace, name string) (token.Anchor, bool, error) {
		obj, found, err := x.read(ctx, types.NamespacedName{Namespace: namespace, Name: name})
		if err != nil || !found {
			return token.Anchor{}, false, err
		}
		_, anchor, ok := describe(obj)
		return anchor, ok, nil
	}
}

type finder func(ctx context.Context, namespace, name string) (token.Anchor, bool, error)

// Anchors is the anchors of every resource a token can hang on. It implements token.Anchors.
type Anchors struct {
	accounts, pods, secrets, nodes finder
}

var _ token.Anchors = Anchors{}

// For returns the anchors to verify by, from memory.
func For(accounts, pods, secrets, nodes *Index) Anchors {
	return Anchors{accounts: accounts.Find, pods: pods.Find, secrets: secrets.Find, nodes: nodes.Find}
}

// Stored is For, but asks storage where other replicas write, since one of them may have made or replaced an object a
// moment ago. Tokens are issued by it, as one for the UID that has just gone would be of no use, and refused by it.
func Stored(accounts, pods, secrets, nodes *Index) Anchors {
	return Anchors{accounts: accounts.current(), pods: pods.current(), secrets: secrets.current(), nodes: nodes.current()}
}

// ServiceAccount implements token.Anchors.
func (a Anchors) ServiceAccount(ctx context.Context, namespace, name string) (token.Anchor, bool, error) {
	return a.accounts(ctx, namespace, name)
}

// Pod implements token.Anchors.
func (a Anchors) Pod(ctx context.Context, namespace, name string) (token.Anchor, bool, error) {
	return a.pods(ctx, namespace, name)
}

// Secret implements token.Anchors.
func (a Anchors) Secret(ctx context.Context, namespace, name string) (token.Anchor, bool, error) {
	return a.secrets(ctx, namespace, name)
}

// Node implements token.Anchors.
func (a Anchors) Node(ctx context.Context, name string) (token.Anchor, bool, error) {
	return a.nodes(ctx, "", name)
}
