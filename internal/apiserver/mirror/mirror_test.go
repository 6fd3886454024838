package mirror

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/metadata"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/apiserver/pkg/registry/generic"
	"k8s.io/apiserver/pkg/registry/rest"
	"k8s.io/apiserver/pkg/storage"
	clocktesting "k8s.io/utils/clock/testing"

	"lanyard.dev/internal/apiserver/registry"
	"lanyard.dev/internal/apiserver/registry/storagetest"
)

// roll is a listener that knows which accounts exist, and can be waited on.
type roll struct {
	mu      sync.Mutex
	changed *sync.Cond
	present map[string]bool
}

func newRoll() *roll {
	r := &roll{present: map[string]bool{}}
	r.changed = sync.NewCond(&r.mu)
	return r
}

func (r *roll) Set(obj runtime.Object)    { r.note(obj, true) }
func (r *roll) Delete(obj runtime.Object) { r.note(obj, false) }

func (r *roll) note(obj runtime.Object, present bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.present[nameOf(obj)] = present
	r.changed.Broadcast()
}

func (r *roll) has(name string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.present[name]
}

// await returns when the listener has been told that name exists, or does not.
func (r *roll) await(t *testing.T, name string, present bool) {
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
		t.Fatalf("listener was not told in time that %s present=%v", name, present)
	}
}

// breaking is storage whose watches the test may end, as etcd does when it loses its leader.
type breaking struct {
	storage.Interface
	mu      sync.Mutex
	watches []watch.Interface
	refuse  error
}

func (b *breaking) Watch(ctx context.Context, key string, opts storage.ListOptions) (watch.Interface, error) {
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

func (b *breaking) breakAll(refuse error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.refuse = refuse
	for _, w := range b.watches {
		w.Stop()
	}
	b.watches = nil
}

func (b *breaking) mend() {
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
func start(t *testing.T, base *storagetest.Storage, alone bool, prepare func(*Feed)) (*registry.Store, *Feed, *roll) {
	t.Helper()
	m := New(Config{Base: base, SoleWriter: alone}, accounts)
	store := accountStore(t, base, m)
	told := newRoll()
	feed := m.Feed(accounts)
	feed.Listen(told)
	if prepare != nil {
		prepare(feed)
	}
	if _, ok := store.Storage.Storage.(*remembering); ok != alone {
		t.Errorf("reads from memory: %v, the only writer: %v", ok, alone)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); m.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	if err := m.WaitSynced(storagetest.In(t, "")); err != nil {
		t.Fatal(err)
	}
	return store, feed, told
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

func TestToldBeforeTheWriteReturns(t *testing.T) {
	t.Parallel()
	base := storagetest.Start(t)
	other := accountStore(t, base, base)
	create(t, other, "stored-before")
	store, feed, told := start(t, base, true, nil)
	if !told.has("stored-before") {
		t.Error("synced without telling what was stored")
	}
	for range 50 {
		made := create(t, store, "robot")
		if !told.has("robot") {
			t.Fatal("a create returned before it was told")
		}
		found, err := store.Get(storagetest.In(t, "ns"), "robot", &metav1.GetOptions{})
		if err != nil {
			t.Fatalf("get right after create: %v", err)
		}
		if uid := found.(*corev1.ServiceAccount).UID; uid != made.UID {
			t.Fatalf("get right after create answers the previous account %s", uid)
		}
		remove(t, store, "robot")
		if told.has("robot") {
			t.Fatal("a delete returned before it was told")
		}
		if _, err := store.Get(storagetest.In(t, "ns"), "robot", &metav1.GetOptions{}); !apierrors.IsNotFound(err) {
			t.Fatalf("get right after delete: %v", err)
		}
	}
	if err := feed.Fresh(); err != nil {
		t.Errorf("the only writer: %v", err)
	}
}

func TestOtherWritersAreTold(t *testing.T) {
	t.Parallel()
	base := storagetest.Start(t)
	store, _, told := start(t, base, false, nil)
	other := accountStore(t, base, base)
	create(t, other, "theirs")
	told.await(t, "theirs", true)
	create(t, store, "ours")
	remove(t, other, "ours")
	told.await(t, "ours", false)
	remove(t, store, "theirs")
	if told.has("theirs") {
		t.Error("a delete returned before it was told")
	}
}

func TestBrokenWatch(t *testing.T) {
	t.Parallel()
	base := storagetest.Start(t)
	var between *breaking
	store, _, told := start(t, base, false, func(f *Feed) {
		between = &breaking{Interface: f.raw}
		f.raw = between
	})
	other := accountStore(t, base, base)
	create(t, store, "kept")
	create(t, store, "removed")
	told.await(t, "removed", true)

	between.breakAll(errors.New("no leader"))
	remove(t, other, "removed")
	create(t, other, "made")
	remove(t, store, "kept")
	create(t, store, "kept")
	if !told.has("kept") {
		t.Error("while the watch is broken, a create of this process returned before it was told")
	}
	between.mend()
	told.await(t, "removed", false)
	told.await(t, "made", true)
	if !told.has("kept") {
		t.Error("the list after a broken watch took a present account away")
	}
}

// TestToldBeforeARefusedCreateReturns makes an account behind the feed's back, as a request does that was not given the
// processor since storage answered it: one that is told "already exists" may rely on the account as much as its maker.
func TestToldBeforeARefusedCreateReturns(t *testing.T) {
	t.Parallel()
	base := storagetest.Start(t)
	var between *breaking
	store, _, told := start(t, base, true, func(f *Feed) {
		between = &breaking{Interface: f.raw}
		f.raw = between
	})
	create(t, store, "first") // by then the feed watches
	between.breakAll(errors.New("no leader"))
	create(t, accountStore(t, base, base), "robot")
	_, err := store.Create(storagetest.In(t, "ns"), &corev1.ServiceAccount{ObjectMeta: storagetest.Meta("ns", "robot")},
		rest.ValidateAllObjectFunc, &metav1.CreateOptions{})
	if !apierrors.IsAlreadyExists(err) {
		t.Fatalf("created twice: %v", err)
	}
	if !told.has("robot") {
		t.Error("a create was refused for an account that the listener has not been told of")
	}
}

// refusing is storage that refuses every write.
type refusing struct{ storage.Interface }

var errRefused = errors.New("etcd is full")

func (refusing) Create(context.Context, string, runtime.Object, runtime.Object, uint64) error {
	return errRefused
}

func (refusing) Delete(context.Context, string, runtime.Object, *storage.Preconditions, storage.ValidateObjectFunc, runtime.Object, storage.DeleteOptions) error {
	return errRefused
}

func (refusing) GuaranteedUpdate(context.Context, string, runtime.Object, bool, *storage.Preconditions, storage.UpdateFunc, runtime.Object) error {
	return errRefused
}

// TestWhatStorageRefusesIsNotTold has out hold what a write might have left there.
func TestWhatStorageRefusesIsNotTold(t *testing.T) {
	t.Parallel()
	told := newRoll()
	told.present["kept"] = true
	feed := feedTo(told)
	layer := &telling{Interface: refusing{}, feed: feed, newObj: func() runtime.Object { return &corev1.ServiceAccount{} }}
	out := func(name string) runtime.Object { return change{revision: 7, name: name}.object() }
	for name, err := range map[string]error{
		"create": layer.Create(t.Context(), "k", nil, out("made"), 0),
		"delete": layer.Delete(t.Context(), "k", out("kept"), nil, nil, nil, storage.DeleteOptions{}),
		"update": layer.GuaranteedUpdate(t.Context(), "k", out("changed"), false, nil, nil, nil),
	} {
		if !errors.Is(err, errRefused) {
			t.Errorf("%s: %v, want %v", name, err, errRefused)
		}
	}
	if told.has("made") || told.has("changed") || !told.has("kept") || feed.Latest() != 0 {
		t.Errorf("listeners were told of refused writes: %v, latest %d", told.present, feed.Latest())
	}
}

// TestFresh holds a feed to proof: signs of life from a watch that lags are none.
func TestFresh(t *testing.T) {
	t.Parallel()
	clock := clocktesting.NewFakePassiveClock(time.Now())
	f := feedTo()
	f.setClock(clock)
	stale := func(when string, want bool) {
		t.Helper()
		if err := f.Fresh(); errors.Is(err, ErrStale) != want {
			t.Errorf("%s: %v, want stale=%v", when, err, want)
		}
	}
	stale("before anything was read", true)
	f.arrive(10)
	if !f.aim(goal{f.now(), 10}) {
		t.Error("an idle storage is not counted as reached")
	}
	stale("up to date", false)

	f.aim(goal{f.now(), 20})
	clock.SetTime(clock.Now().Add(MaxLag))
	if f.aim(goal{f.now(), 30}) {
		t.Error("a goal is reached that the watch has not come to")
	}
	stale("just within bounds", false)
	clock.SetTime(clock.Now().Add(time.Second))
	change{revision: 19, name: "a"}.deliver(t, f)
	stale("a watch that lives but lags", true)
	change{revision: 20, name: "a"}.deliver(t, f)
	stale("at where storage was long ago", true)
	f.aim(goal{f.now(), 30})
	change{revision: 31, name: "a"}.deliver(t, f)
	stale("beyond where storage was now", false)
}

func (c change) deliver(t *testing.T, f *Feed) {
	t.Helper()
	if err := f.receive(c.event()); err != nil {
		t.Error(err)
	}
}

// TestIdleReplicaStaysFresh waits on an etcd that nobody writes to, then on one where only another resource moves.
func TestIdleReplicaStaysFresh(t *testing.T) {
	t.Parallel()
	base := storagetest.Start(t)
	clock := clocktesting.NewFakePassiveClock(time.Now())
	asked := make(chan struct{})
	_, feed, _ := start(t, base, false, func(f *Feed) {
		f.setClock(clock)
		f.raw = &observed{Interface: f.raw, asked: asked}
	})
	clock.SetTime(clock.Now().Add(MaxLag + time.Second))
	if err := feed.Fresh(); !errors.Is(err, ErrStale) {
		t.Errorf("long after the last proof: %v, want %v", err, ErrStale)
	}
	await := func(n int) {
		for range n {
			select {
			case <-asked:
			case <-time.After(20 * time.Second):
				t.Fatal("the feed asks no more how far storage is")
			}
		}
	}
	await(3) // one may have been under way; when the feed asks again it has counted the answer before
	if err := feed.Fresh(); err != nil {
		t.Errorf("idle storage: %v", err)
	}

	others := base.Store(base, corev1.Resource("configmaps"))
	t.Cleanup(others.Destroy)
	_, err := others.Create(storagetest.In(t, "ns"), &corev1.ConfigMap{ObjectMeta: storagetest.Meta("ns", "c")},
		rest.ValidateAllObjectFunc, &metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	clock.SetTime(clock.Now().Add(MaxLag + time.Second))
	await(3)
	if err := feed.Fresh(); err != nil {
		t.Errorf("storage of which another resource moved: %v", err)
	}
}

// steppedClock is a wall clock that a test sets, over a monotonic one that only goes on. Since measures by the latter, as
// that of the real clock does, for instants that were noted before the first step.
type steppedClock struct {
	began         time.Time
	passed, steps time.Duration
}

func (c *steppedClock) Now() time.Time                  { return c.began.Add(c.passed + c.steps) }
func (c *steppedClock) Since(t time.Time) time.Duration { return c.began.Add(c.passed).Sub(t) }

// TestProofsAgeWhateverTheWallClockSays sets the clock while a feed has no proof, and while it makes one.
func TestProofsAgeWhateverTheWallClockSays(t *testing.T) {
	t.Parallel()
	const step = 10 * time.Minute
	for _, test := range []struct {
		name           string
		atProof, after time.Duration // steps of the clock
	}{
		{"no step", 0, 0}, {"back after the proof", 0, -step}, {"ahead after the proof", 0, step},
		{"ahead during the proof, then corrected", step, -step}, {"back during the proof, then corrected", -step, step},
	} {
		clock := &steppedClock{began: time.Now()}
		f := feedTo()
		f.setClock(clock)
		clock.steps += test.atProof
		f.arrive(10)
		f.aim(goal{f.now(), 10})
		clock.steps += test.after
		clock.passed += MaxLag
		if err := f.Fresh(); err != nil {
			t.Errorf("%s: %v after the proof: %v", test.name, MaxLag, err)
		}
		clock.passed += time.Millisecond
		if err := f.Fresh(); !errors.Is(err, ErrStale) {
			t.Errorf("%s: more than %v after the proof: %v, want %v", test.name, MaxLag, err, ErrStale)
		}
	}
}

// silent is storage that fails in parts: mute drops the events of the watches that are opened, away answers no question
// for its revision until the asker gives up, and deaf takes no request for progress.
type silent struct {
	storage.Interface
	mu               sync.Mutex
	mute, away, deaf bool
	opened           chan context.Context // of each watch
}

func (s *silent) set(mute, away, deaf bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mute, s.away, s.deaf = mute, away, deaf
}

func (s *silent) state() (mute, away, deaf bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.mute, s.away, s.deaf
}

func (s *silent) Watch(ctx context.Context, key string, opts storage.ListOptions) (watch.Interface, error) {
	w, err := s.Interface.Watch(ctx, key, opts)
	if err != nil {
		return nil, err
	}
	mute, _, _ := s.state()
	s.opened <- ctx
	if !mute {
		return w, nil
	}
	return watch.Filter(w, func(watch.Event) (watch.Event, bool) { return watch.Event{}, false }), nil
}

func (s *silent) GetCurrentResourceVersion(ctx context.Context) (uint64, error) {
	if _, away, _ := s.state(); away {
		<-ctx.Done()
		return 0, ctx.Err()
	}
	return s.Interface.GetCurrentResourceVersion(ctx)
}

var errDeaf = errors.New("no stream")

func (s *silent) RequestWatchProgress(ctx context.Context) error {
	if _, _, deaf := s.state(); deaf {
		return errDeaf
	}
	return s.Interface.RequestWatchProgress(ctx)
}

// TestASilentWatchIsReplaced hangs the watch of a feed, then the questions that its lag is measured by.
func TestASilentWatchIsReplaced(t *testing.T) {
	t.Parallel()
	base := storagetest.Start(t)
	quick := pace{every: 20 * time.Millisecond, timeout: 100 * time.Millisecond, reopen: 300 * time.Millisecond}
	s := &silent{opened: make(chan context.Context, 100)}
	var feed *Feed
	_, feed, told := start(t, base, false, func(f *Feed) {
		s.Interface, s.mute, f.raw, f.pace = f.raw, true, s, quick
	})
	other := accountStore(t, base, base)
	create(t, other, "unheard")
	reopened := func() (context.Context, metadata.MD) {
		select {
		case ctx := <-s.opened:
			stream, _ := metadata.FromOutgoingContext(ctx)
			return ctx, stream
		case <-time.After(20 * time.Second):
			t.Fatal("a watch that proves nothing is not opened again")
			return nil, nil
		}
	}
	hung, first := reopened()
	_, second := reopened()
	if fmt.Sprint(first) == fmt.Sprint(second) {
		t.Errorf("the watch was opened again in the stream that hangs: %v", second)
	}
	if cause := context.Cause(hung); cause == nil || !strings.Contains(cause.Error(), "no proof of progress for") {
		t.Errorf("the first watch ended with %v", cause)
	}
	told.await(t, "unheard", true)

	s.set(false, true, false)
	proved := feed.progress.Load()
	for tries, current := 0, hung; ; tries++ {
		next, _ := reopened()
		if errors.Is(context.Cause(current), context.DeadlineExceeded) {
			break
		}
		if tries == 8 {
			t.Fatalf("no watch ended for want of an answer, the last with %v", context.Cause(current))
		}
		current = next
	}
	if feed.progress.Load() <= proved {
		t.Error("a feed that lists again has proved nothing by it")
	}
	s.set(false, false, false)
	create(t, other, "heard")
	told.await(t, "heard", true)
}

// TestWhatAFailedMeasurementProves is nothing.
func TestWhatAFailedMeasurementProves(t *testing.T) {
	t.Parallel()
	base := storagetest.Start(t)
	f := feedTo()
	_, running, _ := start(t, base, true, nil)
	s := &silent{Interface: running.raw}
	f.raw, f.pace.timeout = s, 50*time.Millisecond
	for _, test := range []struct {
		name       string
		away, deaf bool
		reached    uint64 // by the watch
		want       error
		fresh      bool
	}{
		// The watch would take no request either, so that an error of the question that is dropped shows as errDeaf.
		{"storage does not answer", true, true, 1 << 60, context.DeadlineExceeded, false},
		{"the watch takes no request", false, true, 0, errDeaf, false},
		{"the watch has not come as far", false, false, 0, nil, false},
		{"the watch is there", false, true, 1 << 60, nil, true},
	} {
		f.goal, f.watched = goal{}, test.reached
		s.set(false, test.away, test.deaf)
		if err := f.measure(t.Context()); !errors.Is(err, test.want) {
			t.Errorf("%s: %v, want %v", test.name, err, test.want)
		}
		if err := f.Fresh(); (err == nil) != test.fresh {
			t.Errorf("%s: %v, want fresh=%v", test.name, err, test.fresh)
		}
	}
}

// observed reports each question for the revision of storage.
type observed struct {
	storage.Interface
	asked chan<- struct{}
}

func (o *observed) GetCurrentResourceVersion(ctx context.Context) (uint64, error) {
	select {
	case o.asked <- struct{}{}:
	case <-ctx.Done():
	}
	return o.Interface.GetCurrentResourceVersion(ctx)
}

func TestWaitSyncedSaysWhatIsMissing(t *testing.T) {
	t.Parallel()
	m := New(Config{SoleWriter: true}, accounts)
	cause := errors.New("etcd is away")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(cause)
	err := m.WaitSynced(ctx)
	if !errors.Is(err, cause) || err.Error() != "read serviceaccounts from storage: etcd is away" {
		t.Errorf("got %v", err)
	}
}
