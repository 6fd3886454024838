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

// Source is the feed that fills an index.
type Source interface {
	// Fresh returns an error if the index may be too far behind the writes of other replicas.
	Fresh() error
}

// Read reads an object from storage. found is false if there is none.
type Read func(ctx context.Context, name types.NamespacedName) (obj runtime.Object, found bool, err error)

// Index holds the anchors of one resource. It is a mirror.Listener, and safe for concurrent use.
type Index struct {
	source Source
	read   Read

	mu      sync.RWMutex
	anchors map[types.NamespacedName]token.Anchor
}

// NewIndex returns an empty index. read is nil if this process is the only writer of the storage.
func NewIndex(source Source, read Read) *Index {
	return &Index{source: source, read: read, anchors: map[types.NamespacedName]token.Anchor{}}
}

// Set implements mirror.Listener.
func (x *Index) Set(obj runtime.Object) {
	name, anchor, ok := anchorOf(obj)
	if !ok {
		return
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	x.anchors[name] = anchor
}

// Delete implements mirror.Listener.
func (x *Index) Delete(obj runtime.Object) {
	name, _, ok := anchorOf(obj)
	if !ok {
		return
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	delete(x.anchors, name)
}

// Find returns the anchor with a name, as the feed delivered it last. It returns an error if the index may be out of date:
// then neither an anchor nor its absence could be trusted.
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

// anchorOf returns the name and the anchor of an object. ok is false if it has no metadata.
func anchorOf(obj runtime.Object) (name types.NamespacedName, anchor token.Anchor, ok bool) {
	m, err := meta.Accessor(obj)
	if err != nil {
		return types.NamespacedName{}, token.Anchor{}, false
	}
	anchor = token.Anchor{UID: string(m.GetUID())}
	if at := m.GetDeletionTimestamp(); at != nil {
		anchor.DeletionTimestamp = at.Time
	}
	if pod, ok := obj.(*corev1.Pod); ok {
		anchor.ServiceAccountName, anchor.NodeName = pod.Spec.ServiceAccountName, pod.Spec.NodeName
	}
	return types.NamespacedName{Namespace: m.GetNamespace(), Name: m.GetName()}, anchor, true
}

// stored returns a finder that reads storage if other replicas write it too, and Find otherwise.
func (x *Index) stored() finder {
	if x.read == nil {
		return x.Find
	}
	return func(ctx context.Context, namespace, name string) (token.Anchor, bool, error) {
		obj, found, err := x.read(ctx, types.NamespacedName{Namespace: namespace, Name: name})
		if err != nil || !found {
			return token.Anchor{}, false, err
		}
		_, anchor, ok := anchorOf(obj)
		return anchor, ok, nil
	}
}

type finder func(ctx context.Context, namespace, name string) (token.Anchor, bool, error)

// Anchors finds the anchors of every resource that a token can be bound to. It implements token.Anchors.
type Anchors struct {
	accounts, pods, secrets, nodes finder
}

var _ token.Anchors = Anchors{}

// Remembered returns anchors that are read from memory. Tokens are verified with them.
func Remembered(accounts, pods, secrets, nodes *Index) Anchors {
	return Anchors{accounts: accounts.Find, pods: pods.Find, secrets: secrets.Find, nodes: nodes.Find}
}

// Stored returns anchors that are read from storage if other replicas write it, since one of them may have created or
// replaced an object a moment ago. Tokens are issued with them, because a token for a UID that has just been deleted would be
// useless. A token is refused only if they confirm that its anchor is gone.
func Stored(accounts, pods, secrets, nodes *Index) Anchors {
	return Anchors{accounts: accounts.stored(), pods: pods.stored(), secrets: secrets.stored(), nodes: nodes.stored()}
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
