package mirror

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/metadata"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/apiserver/pkg/registry/generic"
	"k8s.io/apiserver/pkg/storage"
	"k8s.io/apiserver/pkg/storage/storagebackend"
	clocktesting "k8s.io/utils/clock/testing"
)

// scripted is storage whose answers a test writes beforehand.
type scripted struct {
	storage.Interface
	revision         string // of its list
	listErr, openErr error
	events           []watch.Event // of each watch, which then ends
	tooLarge         bool          // whether a Get at a revision is refused
	read             []string      // the revisions that Get was asked for
	asked            func() (uint64, error)
}

func (s *scripted) GetList(_ context.Context, _ string, _ storage.ListOptions, list runtime.Object) error {
	list.(*corev1.ServiceAccountList).ResourceVersion = s.revision
	return s.listErr
}

func (s *scripted) Watch(context.Context, string, storage.ListOptions) (watch.Interface, error) {
	if s.openErr != nil {
		return nil, s.openErr
	}
	w := watch.NewFakeWithChanSize(len(s.events), false)
	for _, e := range s.events {
		w.Action(e.Type, e.Object)
	}
	w.Stop()
	return w, nil
}

func (s *scripted) Get(_ context.Context, _ string, opts storage.GetOptions, _ runtime.Object) error {
	s.read = append(s.read, opts.ResourceVersion)
	if s.tooLarge && opts.ResourceVersion != "" {
		return storage.NewTooLargeResourceVersionError(5, 1, 1)
	}
	return nil
}

func (s *scripted) GetCurrentResourceVersion(context.Context) (uint64, error) { return s.asked() }

// TestHowAWatchEnds: with the reason, after all events before it were told.
func TestHowAWatchEnds(t *testing.T) {
	t.Parallel()
	broken, gone := errors.New("broken"), errors.New("the server stops")
	status := watch.Event{Type: watch.Error, Object: &metav1.Status{Message: "compacted"}}
	made := []watch.Event{change{revision: 3, name: "a"}.event(), change{revision: 4, name: "b"}.event()}
	for _, tt := range []struct {
		name    string
		storage scripted
		cause   error // the context ends with it
		is      error
		text    string
		told    bool
		opened  bool
	}{
		{name: "closed", storage: scripted{revision: "2", events: made}, text: "watch closed", told: true, opened: true},
		{name: "closed with the context", storage: scripted{revision: "2", events: made}, cause: gone, is: gone, told: true, opened: true},
		{name: "an error event", storage: scripted{revision: "2", events: append(made, status)}, text: "compacted", told: true, opened: true},
		{name: "no list", storage: scripted{listErr: broken}, is: broken, text: "list serviceaccounts"},
		{name: "a list of no revision", storage: scripted{revision: "x", events: made}, text: "list serviceaccounts"},
		{name: "no watch", storage: scripted{revision: "2", openErr: broken}, is: broken, text: "watch serviceaccounts"},
	} {
		told := newRoll()
		f := feedTo(told)
		f.alone, f.raw, f.newList = true, &tt.storage, func() runtime.Object { return &corev1.ServiceAccountList{} }
		ctx, cancel := context.WithCancelCause(t.Context())
		if tt.cause != nil {
			cancel(tt.cause)
		}
		opened, err := f.listAndWatch(ctx)
		cancel(nil)
		if err == nil || !strings.Contains(err.Error(), tt.text) || tt.is != nil && !errors.Is(err, tt.is) {
			t.Errorf("%s: %v, want %v with %q", tt.name, err, tt.is, tt.text)
		}
		if (opened > 0) != tt.opened || told.has("a") != tt.told || told.has("b") != tt.told {
			t.Errorf("%s: opened at %v, told %v", tt.name, opened, told.present)
		}
	}
}

// TestPauseBeforeTheNextWatch is short only after a watch that has proved something.
func TestPauseBeforeTheNextWatch(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		opened, progress time.Duration
		alone, want      bool
	}{
		{0, 0, true, false}, {0, 5, false, false}, {5, 0, true, true}, {5, 4, false, false}, {5, 5, false, false}, {5, 6, false, true},
	} {
		f := feedTo()
		f.alone = tt.alone
		f.progress.Store(int64(tt.progress))
		if got := f.proved(tt.opened); got != tt.want {
			t.Errorf("opened at %d, progress %d, alone %v: %v, want %v", tt.opened, tt.progress, tt.alone, got, tt.want)
		}
	}
}

func TestEachAttemptHasItsOwnStream(t *testing.T) {
	t.Parallel()
	seen := map[string]int{}
	for attempt := range 4 {
		stream, _ := metadata.FromOutgoingContext(inStream(t.Context(), attempt))
		if before, ok := seen[fmt.Sprint(stream)]; ok {
			t.Errorf("attempts %d and %d share %v", before, attempt, stream)
		}
		seen[fmt.Sprint(stream)] = attempt
	}
}

func TestWhatIsUnreadable(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		err  error
		want bool
	}{
		"internal":  {storage.NewInternalError(errors.New("no key")), true},
		"corrupt":   {storage.NewCorruptObjError("k", errors.New("no key")), true},
		"wrapped":   {fmt.Errorf("list: %w", storage.NewCorruptObjError("k", errors.New("no key"))), true},
		"not found": {storage.NewKeyNotFoundError("k", 1), false},
		"other":     {errors.New("away"), false},
	} {
		if got := isUnreadable(tt.err); got != tt.want {
			t.Errorf("%s: %v, want %v", name, got, tt.want)
		}
	}
}

// TestMetadataIsAllThatIsKept: a feed remembers every object.
func TestMetadataIsAllThatIsKept(t *testing.T) {
	t.Parallel()
	account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{
		Namespace: "ns", Name: "a", UID: "u", ResourceVersion: "7", Annotations: map[string]string{"large": "x"},
	}}
	kept, ok := metadataOf(account).(*metav1.PartialObjectMetadata)
	if !ok || kept.Namespace != "ns" || kept.Name != "a" || kept.UID != "u" || kept.ResourceVersion != "7" || kept.Annotations != nil {
		t.Errorf("of %+v %+v is kept", account, kept)
	}
}

// TestSilenceEndsAWatch when it has lasted for longer than it may, and not while there are proofs.
func TestSilenceEndsAWatch(t *testing.T) {
	t.Parallel()
	away := errors.New("away")
	for _, tt := range []struct {
		name   string
		answer error
		silent time.Duration // beyond what is allowed
		ends   bool
	}{
		{"proofs", nil, time.Hour, false}, {"just long enough", away, 0, false}, {"too long", away, 1, true},
	} {
		f := feedTo()
		f.setClock(clocktesting.NewFakePassiveClock(time.Now()))
		f.pace.every, f.watched = time.Millisecond, 10
		ctx, cancel := context.WithCancel(t.Context())
		asked := 0
		f.raw = &scripted{asked: func() (uint64, error) {
			if asked++; asked == 3 {
				cancel()
			}
			return 5, tt.answer
		}}
		err := f.measureLag(ctx, f.now()-f.pace.reopen-tt.silent)
		cancel()
		if (err != nil) != tt.ends || tt.ends && !errors.Is(err, away) || !tt.ends && asked != 3 {
			t.Errorf("%s: %v after %d questions, want an end %v", tt.name, err, asked, tt.ends)
		}
	}
}

// TestReadsFromMemory are those that name no revision, once a write was told.
func TestReadsFromMemory(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		asked    string
		latest   uint64
		tooLarge bool
		want     []string
	}{
		{"", 0, false, []string{""}}, {"", 5, false, []string{"5"}}, {"3", 5, false, []string{"3"}}, {"3", 0, false, []string{"3"}},
		{"", 5, true, []string{"5", ""}},
	} {
		f := feedTo()
		f.latest.Store(tt.latest)
		s := &scripted{tooLarge: tt.tooLarge}
		err := (&remembering{Interface: s, feed: f}).Get(t.Context(), "k", storage.GetOptions{ResourceVersion: tt.asked}, nil)
		if err != nil || fmt.Sprint(s.read) != fmt.Sprint(tt.want) {
			t.Errorf("asked for %q at %d: %v, read %q, want %q", tt.asked, tt.latest, err, s.read, tt.want)
		}
	}
}

func TestFreshOfAMirror(t *testing.T) {
	t.Parallel()
	for alone, want := range map[bool]error{true: nil, false: ErrStale} {
		if err := New(Config{SoleWriter: alone}, accounts).Fresh(); !errors.Is(err, want) {
			t.Errorf("before anything was read, alone %v: %v, want %v", alone, err, want)
		}
	}
}

// unconfigured is storage options that cannot be had.
type unconfigured struct{ error }

func (u unconfigured) GetRESTOptions(schema.GroupResource, runtime.Object) (generic.RESTOptions, error) {
	return generic.RESTOptions{}, u.error
}

func TestOptionsThatCannotBeHad(t *testing.T) {
	t.Parallel()
	want := errors.New("no such resource")
	if _, err := New(Config{Base: unconfigured{want}}, accounts).GetRESTOptions(accounts, nil); !errors.Is(err, want) {
		t.Errorf("got %v, want %v", err, want)
	}
	unknown := &storagebackend.ConfigForResource{Config: storagebackend.Config{Type: "unknown"}, GroupResource: accounts}
	if s, _, err := New(Config{}, accounts).decorate(unknown, "", nil, nil, nil, nil, nil, nil); err == nil || s != nil {
		t.Errorf("a storage of unknown type: %v, %v", s, err)
	}
}

// TestWhichWatchesAreTimed: those that ask for times, which only the watch cache does.
func TestWhichWatchesAreTimed(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	event := watch.Event{Type: watch.Added, Object: &timedObject{Object: &corev1.ServiceAccount{}, at: at}}
	for _, timed := range []bool{true, false} {
		w, err := bounded{&scripted{events: []watch.Event{event}}}.Watch(t.Context(), "", storage.ListOptions{RecordTimestamps: timed})
		if err != nil {
			t.Fatal(err)
		}
		got := <-w.ResultChan()
		w.Stop()
		if renewed := got.Object != event.Object; renewed != timed {
			t.Errorf("times asked for: %v, times given: %v", timed, renewed)
		}
	}
	away := errors.New("away")
	if _, err := (bounded{&scripted{openErr: away}}).Watch(t.Context(), "", storage.ListOptions{RecordTimestamps: true}); !errors.Is(err, away) {
		t.Errorf("got %v, want %v", err, away)
	}
}
