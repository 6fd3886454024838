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

// readTimeout and writeTimeout bound a reading and a change of the stored keys.
const readTimeout, writeTimeout = 5 * time.Second, 10 * time.Second

// Keyring is the keys of an authority. It is safe for concurrent use.
type Keyring struct {
	policy   rotation.Policy
	accepted signingkey.KeySource
	storage  storage.Interface
	feed     *mirror.Feed
	// soleWriter is whether no other process changes the keys.
	soleWriter bool

	mu      sync.Mutex // held while current changes
	current atomic.Pointer[state]
}

// state is the keys at a revision of the storage.
type state struct {
	revision uint64
	ring     rotation.Ring
	set      *signingkey.Set
	accepted *signingkey.Set // the further keys in set
	err      error           // why the keys of this revision cannot be used; set and ring are then those of an earlier one
	replaced chan struct{}   // closed when another state is in force
}

var (
	_ signingkey.KeySource = &Keyring{}
	_ mirror.Listener      = &Keyring{}
)

// Config is what a keyring depends on.
type Config struct {
	// Storage stores objects of this package with Codec, encrypted, and Feed delivers them.
	Storage storage.Interface
	Feed    *mirror.Feed
	Policy  rotation.Policy
	// Accepted has further keys whose tokens are accepted.
	Accepted signingkey.KeySource
}

// New returns a keyring without keys. Once the feed has synced, the keyring has the stored keys.
func New(c Config) (*Keyring, error) {
	k := &Keyring{policy: c.Policy, accepted: c.Accepted, storage: c.Storage, feed: c.Feed, soleWriter: c.Feed.SoleWriter()}
	if err := k.apply(0, nil); err != nil {
		return nil, err
	}
	k.feed.Listen(k)
	return k, nil
}

// Current implements signingkey.KeySource.
func (k *Keyring) Current() *signingkey.Set {
	s := k.current.Load()
	if s.accepted != k.accepted.Current() {
		s = k.accept()
	}
	return s.set
}

// accept puts a change of the further keys into force.
func (k *Keyring) accept() *state {
	k.mu.Lock()
	defer k.mu.Unlock()
	before := k.current.Load()
	next := *before
	next.replaced = make(chan struct{})
	next.accepted = k.accepted.Current()
	set, err := k.policy.Set(next.ring, next.accepted.Keys()...)
	if err != nil {
		klog.ErrorS(err, "The further keys of service account tokens stay as they were")
	} else {
		next.set = set
	}
	k.current.Store(&next)
	close(before.replaced)
	return &next
}

// Ring returns the keys in force, and the revision of the storage that they have.
func (k *Keyring) Ring() (rotation.Ring, uint64) {
	s := k.current.Load()
	return s.ring, s.revision
}

// Newer returns once Ring has a later revision than the given one, or with the cause of the end of ctx.
func (k *Keyring) Newer(ctx context.Context, revision uint64) error {
	for {
		s := k.current.Load()
		if s.revision > revision {
			return nil
		}
		select {
		case <-s.replaced:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// Settle returns once Ring has everything that was written before the call.
func (k *Keyring) Settle(ctx context.Context) error {
	if k.soleWriter {
		return nil
	}
	return k.Refresh(ctx)
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
	next := &state{revision: revision, accepted: k.accepted.Current(), replaced: make(chan struct{})}
	if data != nil {
		next.ring, next.err = rotation.Unmarshal(data)
	}
	if next.err == nil {
		next.set, next.err = k.policy.Set(next.ring, next.accepted.Keys()...)
	}
	if next.err != nil && before != nil {
		next.ring, next.set = before.ring, before.set
	}
	k.current.Store(next)
	if before != nil {
		close(before.replaced)
	}
	return next.err
}

// Refresh reads the keys from the storage, past the feed. A replica calls it when it does not know a key, which another replica
// may have added a moment ago.
func (k *Keyring) Refresh(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	stored := &Object{}
	if err := k.storage.Get(ctx, Prefix+"/"+name, storage.GetOptions{IgnoreNotFound: true}, stored); err != nil {
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
	err := k.storage.GuaranteedUpdate(ctx, Prefix+"/"+name, &Object{}, true, nil, update, nil)
	switch {
	case refused != nil && errors.Is(err, refused):
		return rotation.Ring{}, refused
	case err != nil:
		return rotation.Ring{}, fmt.Errorf("store the signing keys: %w", err)
	}
	return result, nil
}
