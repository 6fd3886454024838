package mirror

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/apiserver/pkg/registry/generic"
	"k8s.io/apiserver/pkg/registry/rest"
	"k8s.io/apiserver/pkg/storage"

	"lanyard.dev/internal/apiserver/registry"
	"lanyard.dev/internal/apiserver/registry/storagetest"
	"lanyard.dev/internal/hint"
)

// recorder is a listener that knows which accounts exist. A test can wait for a change.
type recorder struct {
	mu      sync.Mutex
	changed *sync.Cond
	present map[string]bool
}

func newRecorder() *recorder {
	r := &recorder{present: map[string]bool{}}
	r.changed = sync.NewCond(&r.mu)
	return r
}

func (r *recorder) Set(obj runtime.Object) { r.note(obj, true) }

func (r *recorder) Delete(obj runtime.Object) { r.note(obj, false) }

func (r *recorder) note(obj runtime.Object, present bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.present[nameOf(obj)] = present
	r.changed.Broadcast()
}

func (r *recorder) has(name string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.present[name]
}

// await waits until an account is present, or is not.
func (r *recorder) await(t *testing.T, name string, present bool) {
	t.Helper()
	late := time.AfterFunc(20*time.Second, func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.present["too late"] = true
		r.changed.Broadcast()
	})
	defer late.Stop()
	r.mu.Lock()
	defer r.mu.Unlock()
	for r.present[name] != present && !r.present["too late"] {
		r.changed.Wait()
	}
	if r.present[name] != present {
		t.Fatalf("the listener did not hear in time that %s present=%v", name, present)
	}
}

// breakableStorage is storage whose watches a test can end, as etcd does when it loses its leader.
type breakableStorage struct {
	storage.Interface
	mu      sync.Mutex
	watches []watch.Interface
	refuse  error // of new watches
}

func (b *breakableStorage) Watch(ctx context.Context, key string, opts storage.ListOptions) (watch.Interface, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.refuse != nil {
		return nil, b.refuse
	}
	w, err := b.Interface.Watch(ctx, key, opts)
	if err == nil {
		b.watches = append(b.watches, w)
	}
	return w, err
}

func (b *breakableStorage) breakAll(refuse error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.refuse = refuse
	for _, w := range b.watches {
		w.Stop()
	}
	b.watches = nil
}

func (b *breakableStorage) mend() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.refuse = nil
}

var accounts = corev1.Resource("serviceaccounts")

func accountStore(t *testing.T, base *storagetest.Storage, getter generic.RESTOptionsGetter) *registry.Store {
	t.Helper()
	store := base.Store(getter, accounts)
	t.Cleanup(store.Destroy)
	return store
}

// start runs a mirror of service accounts over base and returns it with its store and a listener.
func start(t *testing.T, base *storagetest.Storage, soleWriter bool, prepare func(*Feed)) (*registry.Store, *Feed, *recorder) {
	t.Helper()
	m := New(Config{Base: base, SoleWriter: soleWriter}, accounts)
	store := accountStore(t, base, m)
	listener := newRecorder()
	feed := m.Feed(accounts)
	feed.Listen(listener)
	if prepare != nil {
		prepare(feed)
	}
	if _, ok := store.Storage.Storage.(*cachedReads); ok != soleWriter {
		t.Errorf("reads from memory: %v, sole writer: %v", ok, soleWriter)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); m.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	if err := m.WaitSynced(storagetest.In(t, "")); err != nil {
		t.Fatal(err)
	}
	return store, feed, listener
}

func create(t *testing.T, store *registry.Store, name string) *corev1.ServiceAccount {
	t.Helper()
	made, err := store.Create(storagetest.In(t, "ns"), &corev1.ServiceAccount{ObjectMeta: storagetest.Meta("ns", name)},
		rest.ValidateAllObjectFunc, &metav1.CreateOptions{})
	if err != nil {
		t.Fatalf("create %s: %v", name, err)
	}
	return made.(*corev1.ServiceAccount)
}

func remove(t *testing.T, store *registry.Store, name string) {
	t.Helper()
	_, _, err := store.Delete(storagetest.In(t, "ns"), name, rest.ValidateAllObjectFunc, &metav1.DeleteOptions{})
	if err != nil {
		t.Fatalf("delete %s: %v", name, err)
	}
}

// TestWritesAreDeliveredBeforeTheyReturn checks creates and deletes of this process, and reads after them.
func TestWritesAreDeliveredBeforeTheyReturn(t *testing.T) {
	t.Parallel()
	base := storagetest.Start(t)
	other := accountStore(t, base, base)
	create(t, other, "stored-before")
	store, feed, listener := start(t, base, true, nil)
	if !listener.has("stored-before") {
		t.Error("the feed is synced and has not delivered what was stored")
	}
	for range 50 {
		made := create(t, store, "robot")
		if !listener.has("robot") {
			t.Fatal("a create returned before it was delivered")
		}
		found, err := store.Get(storagetest.In(t, "ns"), "robot", &metav1.GetOptions{})
		if err != nil {
			t.Fatalf("get right after create: %v", err)
		}
		if uid := found.(*corev1.ServiceAccount).UID; uid != made.UID {
			t.Fatalf("get right after create returns the previous account %s", uid)
		}
		remove(t, store, "robot")
		if listener.has("robot") {
			t.Fatal("a delete returned before it was delivered")
		}
		if _, err := store.Get(storagetest.In(t, "ns"), "robot", &metav1.GetOptions{}); !apierrors.IsNotFound(err) {
			t.Fatalf("get right after delete: %v", err)
		}
	}
	if err := feed.Fresh(); err != nil {
		t.Errorf("the sole writer is not fresh: %v", err)
	}
}

// TestWritesOfOthersAreDelivered checks creates and deletes by another process.
func TestWritesOfOthersAreDelivered(t *testing.T) {
	t.Parallel()
	base := storagetest.Start(t)
	store, _, listener := start(t, base, false, nil)
	other := accountStore(t, base, base)
	create(t, other, "theirs")
	listener.await(t, "theirs", true)
	create(t, store, "ours")
	remove(t, other, "ours")
	listener.await(t, "ours", false)
	remove(t, store, "theirs")
	if listener.has("theirs") {
		t.Error("a delete returned before it was delivered")
	}
}

// TestBrokenWatch checks that a feed delivers the writes of this process while its watch is broken, and everything that it
// missed afterwards.
func TestBrokenWatch(t *testing.T) {
	t.Parallel()
	base := storagetest.Start(t)
	var between *breakableStorage
	store, _, listener := start(t, base, false, func(f *Feed) {
		between = &breakableStorage{Interface: f.raw}
		f.raw = between
	})
	other := accountStore(t, base, base)
	create(t, store, "kept")
	create(t, store, "removed")
	listener.await(t, "removed", true)

	between.breakAll(errors.New("no leader"))
	remove(t, other, "removed")
	create(t, other, "made")
	remove(t, store, "kept")
	create(t, store, "kept")
	if !listener.has("kept") {
		t.Error("while the watch is broken, a create of this process returned before it was delivered")
	}
	between.mend()
	listener.await(t, "removed", false)
	listener.await(t, "made", true)
	if !listener.has("kept") {
		t.Error("the list after a broken watch removed an account that exists")
	}
}

// TestAFailedCreateDeliversTheObject creates an account that the feed does not know yet, as a request does between the
// response of the storage and the delivery. A client that receives "already exists" can rely on the account as much as the one
// that created it.
func TestAFailedCreateDeliversTheObject(t *testing.T) {
	t.Parallel()
	base := storagetest.Start(t)
	var between *breakableStorage
	store, _, listener := start(t, base, true, func(f *Feed) {
		between = &breakableStorage{Interface: f.raw}
		f.raw = between
	})
	create(t, store, "first") // the feed watches now
	between.breakAll(errors.New("no leader"))
	create(t, accountStore(t, base, base), "robot")
	_, err := store.Create(storagetest.In(t, "ns"), &corev1.ServiceAccount{ObjectMeta: storagetest.Meta("ns", "robot")},
		rest.ValidateAllObjectFunc, &metav1.CreateOptions{})
	if !apierrors.IsAlreadyExists(err) {
		t.Fatalf("created twice: %v", err)
	}
	if !listener.has("robot") {
		t.Error("a create failed for an account that was not delivered")
	}
}

// TestWaitSynced checks the errors of a start that does not complete in time and of a start that can never complete.
func TestWaitSynced(t *testing.T) {
	t.Parallel()
	m := New(Config{SoleWriter: true}, accounts)
	cause := errors.New("etcd is away")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(cause)
	err := m.WaitSynced(ctx)
	if !errors.Is(err, cause) || err.Error() != "read serviceaccounts from storage: etcd is away" {
		t.Errorf("got %v", err)
	}
	fault := storage.NewInternalError(errors.New("no key decrypts it"))
	m.Feed(accounts).unreadable <- fault
	if err := m.WaitSynced(t.Context()); !errors.Is(err, fault) || hint.Of(err) != unreadableHint {
		t.Errorf("objects that cannot be read: %v with the hint %q", err, hint.Of(err))
	}
}
