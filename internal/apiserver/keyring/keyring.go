package keyring

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/storage"
	"k8s.io/klog/v2"

	"lanyard.dev/internal/apiserver/mirror"
	"lanyard.dev/internal/hint"
	"lanyard.dev/internal/signingkey"
	"lanyard.dev/internal/signingkey/rotation"
)

// writeTimeout bounds a change of the keys.
const writeTimeout = 10 * time.Second

// Keyring is the keys of an authority. It is safe for concurrent use.
type Keyring struct {
	policy   rotation.Policy
	accepted []signingkey.PublicKey
	storage  storage.Interface
	feed     *mirror.Feed
	close    func()

	mu      sync.Mutex // held while current changes
	current atomic.Pointer[state]
}

// state is the keys at a revision of the storage.
type state struct {
	revision uint64
	ring     rotation.Ring
	set      *signingkey.Set
	err      error // why the keys of this revision cannot be used; set and ring are then those of an earlier one
}

var (
	_ signingkey.KeySource = &Keyring{}
	_ mirror.Listener      = &Keyring{}
)

// New returns a keyring without keys, on the storage of m, which has a feed for Resource. Once the feed has synced, the keyring has
// the stored keys. accepted are further keys whose tokens are accepted.
func New(m *mirror.Mirror, policy rotation.Policy, accepted ...signingkey.PublicKey) (*Keyring, error) {
	stored, stop, err := m.Private(stored())
	if err != nil {
		return nil, err
	}
	k := &Keyring{policy: policy, accepted: accepted, storage: stored, feed: m.Feed(Resource), close: stop}
	if err := k.apply(0, nil); err != nil {
		stop()
		return nil, err
	}
	k.feed.Listen(k)
	return k, nil
}

// Close closes the connection to the storage.
func (k *Keyring) Close() { k.close() }

// Current implements signingkey.KeySource.
func (k *Keyring) Current() *signingkey.Set { return k.current.Load().set }

// Ring returns the keys in force, and the revision of the storage that they have.
func (k *Keyring) Ring() (rotation.Ring, uint64) {
	s := k.current.Load()
	return s.ring, s.revision
}

// Policy returns the policy by which keys change.
func (k *Keyring) Policy() rotation.Policy { return k.policy }

// Fresh returns an error if another replica may have changed the keys some time ago, or if the stored keys cannot be read. A key
// that was revoked may still be in Current then.
func (k *Keyring) Fresh() error {
	if err := k.feed.Fresh(); err != nil {
		return err
	}
	return k.current.Load().err
}

// Set implements mirror.Listener.
func (k *Keyring) Set(obj runtime.Object) {
	if o, ok := obj.(*Object); ok && o.Ring != nil {
		k.follow(o, o.Ring)
	}
}

// Delete implements mirror.Listener.
func (k *Keyring) Delete(obj runtime.Object) { k.follow(obj, nil) }

// follow applies what is stored, unless something newer is in force.
func (k *Keyring) follow(obj runtime.Object, data []byte) {
	revision, err := storage.APIObjectVersioner{}.ObjectResourceVersion(obj)
	if err == nil {
		err = k.apply(revision, data)
	}
	if err != nil {
		klog.ErrorS(err, "The stored signing keys cannot be used, so no token is accepted until they can", "revision", revision)
	}
}

// apply puts the keys of a revision into force. If they cannot be used, it keeps the keys from before and returns the reason.
func (k *Keyring) apply(revision uint64, data []byte) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	before := k.current.Load()
	// A deletion may come with the revision of the last write.
	if before != nil && (revision < before.revision || revision == before.revision && data != nil) {
		return nil
	}
	next := &state{revision: revision}
	if data != nil {
		next.ring, next.err = rotation.Unmarshal(data)
	}
	if next.err == nil {
		next.set, next.err = k.policy.Set(next.ring, k.accepted...)
	}
	if next.err != nil && before != nil {
		next.ring, next.set = before.ring, before.set
	}
	k.current.Store(next)
	return next.err
}

// Refresh reads the keys from the storage, past the feed. A replica calls it when it does not know a key, which another replica
// may have added a moment ago.
func (k *Keyring) Refresh(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	stored := &Object{}
	if err := k.storage.Get(ctx, prefix+"/"+name, storage.GetOptions{IgnoreNotFound: true}, stored); err != nil {
		return fmt.Errorf("read the signing keys: %w", err)
	}
	k.Set(stored)
	return k.current.Load().err
}

// restoreHint is the next step if the stored keys cannot be read.
const restoreHint = "restore etcd from a backup, or start the version of this program that wrote the keys"

// Change stores what change returns for the stored keys, and returns it. change may be called several times, because another
// replica may write in between. If it returns an error, nothing is stored and Change returns the same error.
func (k *Keyring) Change(ctx context.Context, change func(rotation.Ring) (rotation.Ring, error)) (rotation.Ring, error) {
	ctx, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	var result rotation.Ring
	var refused error
	update := func(input runtime.Object, _ storage.ResponseMeta) (runtime.Object, *uint64, error) {
		stored := input.(*Object)
		k.Set(stored.deepCopy()) // a caller that is refused knows from then on what made change refuse
		var ring rotation.Ring
		if stored.Ring != nil {
			var err error
			if ring, err = rotation.Unmarshal(stored.Ring); err != nil {
				return nil, nil, hint.New(err, restoreHint)
			}
		}
		if result, refused = change(ring); refused != nil {
			return nil, nil, refused
		}
		data, err := result.Marshal()
		if err != nil {
			return nil, nil, err
		}
		stored.Name, stored.Ring = name, data
		return stored, nil, nil
	}
	err := k.storage.GuaranteedUpdate(ctx, prefix+"/"+name, &Object{}, true, nil, update, nil)
	switch {
	case refused != nil && errors.Is(err, refused):
		return rotation.Ring{}, refused
	case err != nil:
		return rotation.Ring{}, fmt.Errorf("store the signing keys: %w", err)
	}
	return result, nil
}
