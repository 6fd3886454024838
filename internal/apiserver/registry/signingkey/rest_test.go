package signingkey_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/internalversion"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	clocktesting "k8s.io/utils/clock/testing"

	identity "lanyard.dev/apis/identity/v1alpha1"
	"lanyard.dev/internal/apiserver/outage"
	"lanyard.dev/internal/apiserver/registry"
	registrykey "lanyard.dev/internal/apiserver/registry/signingkey"
	"lanyard.dev/internal/signingkey"
	"lanyard.dev/internal/signingkey/rotation"
)

var (
	start  = time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC)
	policy = rotation.Policy{Period: 24 * time.Hour, Lead: time.Hour, Linger: time.Minute}
)

// keys is a keyring in memory.
type keys struct {
	mu       sync.Mutex
	ring     rotation.Ring
	revision uint64
	changed  chan struct{}
	live     live
	err      error
}

func (k *keys) Policy() rotation.Policy { return policy }

func (k *keys) Settle(context.Context) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.err
}

func (k *keys) Ring() (rotation.Ring, uint64) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.ring, k.revision
}

func (k *keys) Newer(ctx context.Context, revision uint64) error {
	for {
		k.mu.Lock()
		now, changed := k.revision, k.changed
		k.mu.Unlock()
		if now > revision {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (k *keys) Change(_ context.Context, change func(rotation.Ring) (rotation.Ring, error)) (rotation.Ring, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.err != nil {
		return rotation.Ring{}, k.err
	}
	next, err := change(k.ring)
	if err != nil {
		return rotation.Ring{}, err
	}
	k.ring, k.revision = next, k.revision+1
	close(k.changed)
	k.changed = make(chan struct{})
	return next, nil
}

// advance makes the changes that are due at a time.
func (k *keys) advance(t *testing.T, now time.Time) {
	t.Helper()
	_, err := k.Change(t.Context(), func(r rotation.Ring) (rotation.Ring, error) {
		next, _, err := policy.Advance(r, now, k.live)
		return next, err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// live is the number of live tokens of each key; a negative one is not known.
type live map[string]int

func (l live) LiveTokens(kid string) (int, error) {
	if l[kid] < 0 {
		return 0, errors.New("behind")
	}
	return l[kid], nil
}

type fixture struct {
	*registrykey.REST
	keys *keys
	live live
}

func newFixture(t *testing.T) *fixture {
	t.Helper()
	f := &fixture{live: live{}}
	f.keys = &keys{revision: 10, changed: make(chan struct{}), live: f.live}
	f.keys.advance(t, start)
	f.REST = registrykey.NewREST(registry.Description{Singular: "signingkey"}, registrykey.Config{
		Keyring: f.keys, Tokens: f.live, Clock: clocktesting.NewFakePassiveClock(start.Add(time.Hour)),
	})
	return f
}

func (f *fixture) list(t *testing.T, options *internalversion.ListOptions) []identity.SigningKey {
	t.Helper()
	got, err := f.List(t.Context(), options)
	if err != nil {
		t.Fatal(err)
	}
	return got.(*identity.SigningKeyList).Items
}

func (f *fixture) create(t *testing.T, algorithm string, dryRun ...string) (*identity.SigningKey, error) {
	t.Helper()
	made, err := f.Create(t.Context(), &identity.SigningKey{Spec: identity.SigningKeySpec{Algorithm: algorithm}}, nil, &metav1.CreateOptions{DryRun: dryRun})
	if err != nil {
		return nil, err
	}
	return made.(*identity.SigningKey), nil
}

// TestRead reads keys in each state.
func TestRead(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	first := f.list(t, nil)[0]
	if first.Status.State != identity.KeySigning || first.Spec.Algorithm != "ES256" || !first.CreationTimestamp.Time.Equal(start) ||
		!first.Status.SigningSince.Time.Equal(start) || first.UID == "" || first.ResourceVersion != "11" || *first.Status.LiveTokens != 0 {
		t.Errorf("got %+v", first)
	}
	f.live[first.Name] = 7
	f.keys.advance(t, start.Add(23*time.Hour))
	f.keys.advance(t, start.Add(24*time.Hour))
	f.keys.advance(t, start.Add(47*time.Hour))
	var cells []string
	for _, key := range f.list(t, nil) {
		if key.Name == first.Name {
			if key.Status.VerifyingSince == nil || *key.Status.LiveTokens != 7 || key.UID != first.UID {
				t.Errorf("got %+v", key)
			}
			f.live[first.Name] = -1
		}
		got, err := f.Get(t.Context(), key.Name, nil)
		if err != nil || got.(*identity.SigningKey).Name != key.Name {
			t.Errorf("get: %v, %v", got, err)
		}
		row := registrykey.Row(got.(*identity.SigningKey), start.Add(47*time.Hour+20*time.Minute))
		if len(row) != len(registrykey.Columns) {
			t.Errorf("row %v", row)
		}
		cells = append(cells, fmt.Sprint(row[1:]...))
	}
	slices.Sort(cells)
	want := []string{"ES256Publishedin 40m020m", "ES256Signing23h024h", "ES256Verifying47h<unknown>47h"}
	if !slices.Equal(cells, want) {
		t.Errorf("rows %q, want %q", cells, want)
	}
	if _, err := f.Get(t.Context(), "none", nil); !apierrors.IsNotFound(err) {
		t.Errorf("an unknown name: %v", err)
	}
	f.keys.err = errors.New("etcd is away")
	if _, err := f.List(t.Context(), nil); outage.Of(err) == nil {
		t.Errorf("list without etcd: %v", err)
	}
	if _, err := f.List(t.Context(), &internalversion.ListOptions{ResourceVersion: "0"}); err != nil {
		t.Errorf("list of any version: %v", err)
	}
}

// TestSelectors lists keys by name, and by labels, which no key has.
func TestSelectors(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	if _, err := f.create(t, "RS256"); err != nil {
		t.Fatal(err)
	}
	all := f.list(t, nil)
	if len(all) != 2 || !slices.IsSortedFunc(all, func(a, b identity.SigningKey) int { return strings.Compare(a.Name, b.Name) }) {
		t.Errorf("got %+v", all)
	}
	byName := f.list(t, &internalversion.ListOptions{FieldSelector: fields.OneTermEqualSelector("metadata.name", all[1].Name)})
	if len(byName) != 1 || byName[0].Name != all[1].Name {
		t.Errorf("by name: %+v", byName)
	}
	if got := f.list(t, &internalversion.ListOptions{LabelSelector: labels.Set{"a": "b"}.AsSelector()}); len(got) != 0 {
		t.Errorf("by label: %+v", got)
	}
	if got := f.list(t, &internalversion.ListOptions{LabelSelector: labels.Everything()}); len(got) != 2 {
		t.Errorf("by every label: %+v", got)
	}
}

// TestCreate publishes keys.
func TestCreate(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	shown, err := f.create(t, "", metav1.DryRunAll)
	if err != nil || shown.Name != "" || shown.Spec.Algorithm != "ES256" || len(f.list(t, nil)) != 1 {
		t.Errorf("dry run: %+v, %v", shown, err)
	}
	made, err := f.create(t, "")
	if err != nil || made.Name == "" || made.Status.State != identity.KeyPublished || made.ResourceVersion != "12" ||
		!made.Status.SigningFrom.Time.Equal(start.Add(2*time.Hour)) || *made.Status.LiveTokens != 0 {
		t.Fatalf("got %+v, %v", made, err)
	}
	if _, err := f.create(t, ""); !apierrors.IsConflict(err) || !strings.Contains(err.Error(), "the key is already published, and signs from 2026-11-28T14:00:00Z") {
		t.Errorf("a second one: %v", err)
	}
	if made, err := f.create(t, "ES384"); err != nil || made.Spec.Algorithm != "ES384" {
		t.Errorf("another algorithm: %+v, %v", made, err)
	}
	refusal := errors.New("not admitted")
	for name, test := range map[string]struct {
		obj      runtime.Object
		validate func(context.Context, runtime.Object) error
		want     func(error) bool
	}{
		"a name":        {obj: &identity.SigningKey{ObjectMeta: metav1.ObjectMeta{Name: "n"}}, want: apierrors.IsInvalid},
		"a prefix":      {obj: &identity.SigningKey{ObjectMeta: metav1.ObjectMeta{GenerateName: "n-"}}, want: apierrors.IsInvalid},
		"an algorithm":  {obj: &identity.SigningKey{Spec: identity.SigningKeySpec{Algorithm: "HS256"}}, want: apierrors.IsInvalid},
		"another kind":  {obj: &identity.IssuedToken{}, want: apierrors.IsBadRequest},
		"not permitted": {obj: &identity.SigningKey{}, validate: func(context.Context, runtime.Object) error { return refusal }, want: func(err error) bool { return err == refusal }},
	} {
		if _, err := f.Create(t.Context(), test.obj, test.validate, &metav1.CreateOptions{}); !test.want(err) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if n := len(f.list(t, nil)); n != 3 {
		t.Errorf("%d keys", n)
	}
}

// TestDelete revokes a key.
func TestDelete(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	key := f.list(t, nil)[0]
	other, version, refusal := types.UID("other"), "1", errors.New("not admitted")
	for name, test := range map[string]struct {
		options  *metav1.DeleteOptions
		validate func(context.Context, runtime.Object) error
		want     func(error) bool
	}{
		"another UID":     {options: &metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &other}}, want: apierrors.IsConflict},
		"another version": {options: &metav1.DeleteOptions{Preconditions: &metav1.Preconditions{ResourceVersion: &version}}, want: apierrors.IsConflict},
		"not permitted":   {validate: func(context.Context, runtime.Object) error { return refusal }, want: func(err error) bool { return err == refusal }},
		"dry run":         {options: &metav1.DeleteOptions{DryRun: []string{metav1.DryRunAll}}, want: func(err error) bool { return err == nil }},
	} {
		if _, _, err := f.Delete(t.Context(), key.Name, test.validate, test.options); !test.want(err) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if left := f.list(t, nil); len(left) != 1 || left[0].Name != key.Name {
		t.Fatalf("keys %+v", left)
	}
	own := &metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &key.UID, ResourceVersion: &key.ResourceVersion}}
	answer, now, err := f.Delete(t.Context(), key.Name, nil, own)
	if err != nil || !now || answer.(*metav1.Status).Details.UID != key.UID {
		t.Errorf("got %v, %v, %v", answer, now, err)
	}
	left := f.list(t, nil)
	if len(left) != 1 || left[0].Name == key.Name || left[0].Status.State != identity.KeySigning {
		t.Errorf("keys %+v", left)
	}
	if _, _, err := f.Delete(t.Context(), key.Name, nil, nil); !apierrors.IsNotFound(err) {
		t.Errorf("again: %v", err)
	}
}

// TestKeysInFiles reads the keys of files, which cannot be changed through the API.
func TestKeysInFiles(t *testing.T) {
	t.Parallel()
	signer, other := must(signingkey.Generate("")), must(signingkey.Generate(""))
	r := registrykey.NewREST(registry.Description{}, registrykey.Config{
		Files: must(signingkey.NewSet(signer, other.Public())), Tokens: live{other.ID(): -1}, Clock: clocktesting.NewFakePassiveClock(start),
	})
	states := map[string]identity.KeyState{}
	for _, key := range must(r.List(t.Context(), nil)).(*identity.SigningKeyList).Items {
		states[key.Name] = key.Status.State
		_ = registrykey.Row(&key, start)
	}
	if len(states) != 2 || states[signer.ID()] != identity.KeySigning || states[other.ID()] != identity.KeyVerifying {
		t.Errorf("states %v", states)
	}
	if _, err := r.Create(t.Context(), &identity.SigningKey{}, nil, nil); !apierrors.IsConflict(err) || !strings.Contains(err.Error(), "files of the server") {
		t.Errorf("create: %v", err)
	}
	if _, _, err := r.Delete(t.Context(), other.ID(), nil, nil); !apierrors.IsConflict(err) {
		t.Errorf("delete: %v", err)
	}
	w := must(r.Watch(t.Context(), nil))
	next(t, w, watch.Added)
	next(t, w, watch.Added)
	w.Stop()
	if _, open := <-w.ResultChan(); open {
		t.Error("the watch goes on")
	}
}

// next returns the name of the key in the next event.
func next(t *testing.T, w watch.Interface, kind watch.EventType) *identity.SigningKey {
	t.Helper()
	select {
	case event := <-w.ResultChan():
		if event.Type != kind {
			t.Fatalf("event %+v, want %s", event, kind)
		}
		return event.Object.(*identity.SigningKey)
	case <-time.After(20 * time.Second):
		t.Fatalf("no event %s", kind)
	}
	return nil
}

// TestWatch follows keys from their publication to their end.
func TestWatch(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	w := must(f.Watch(t.Context(), nil))
	defer w.Stop()
	first := next(t, w, watch.Added).Name
	now := must(f.List(t.Context(), nil)).(*identity.SigningKeyList).ResourceVersion
	from := must(f.Watch(t.Context(), &internalversion.ListOptions{ResourceVersion: now}))
	defer from.Stop()
	selected := must(f.Watch(t.Context(), &internalversion.ListOptions{FieldSelector: fields.OneTermEqualSelector("metadata.name", first), ResourceVersion: now}))
	defer selected.Stop()

	f.keys.advance(t, start.Add(23*time.Hour))
	second := next(t, w, watch.Added)
	if got := next(t, from, watch.Added); got.Name != second.Name || second.Status.State != identity.KeyPublished {
		t.Errorf("got %+v and %+v", got, second)
	}
	f.keys.advance(t, start.Add(24*time.Hour))
	states := map[string]identity.KeyState{}
	for range 2 {
		key := next(t, w, watch.Modified)
		states[key.Name] = key.Status.State
	}
	if states[first] != identity.KeyVerifying || states[second.Name] != identity.KeySigning {
		t.Errorf("states %v", states)
	}
	if got := next(t, selected, watch.Modified); got.Name != first {
		t.Errorf("got %+v", got)
	}
	f.keys.advance(t, start.Add(25*time.Hour))
	if gone := next(t, w, watch.Deleted); gone.Name != first || gone.ResourceVersion != "14" {
		t.Errorf("got %+v", gone)
	}
	next(t, selected, watch.Deleted)
}

// TestWatchStarts checks from where a watch begins.
func TestWatchStarts(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	if _, err := f.Watch(t.Context(), &internalversion.ListOptions{ResourceVersion: "5"}); !apierrors.IsResourceExpired(err) {
		t.Errorf("an old version: %v", err)
	}
	if _, err := f.Watch(t.Context(), &internalversion.ListOptions{ResourceVersion: "x"}); !apierrors.IsBadRequest(err) {
		t.Errorf("no version: %v", err)
	}
	yes := true
	w := must(f.Watch(t.Context(), &internalversion.ListOptions{SendInitialEvents: &yes, AllowWatchBookmarks: true}))
	defer w.Stop()
	next(t, w, watch.Added)
	if mark := next(t, w, watch.Bookmark); mark.Annotations[metav1.InitialEventsAnnotationKey] != "true" || mark.ResourceVersion != "11" {
		t.Errorf("got %+v", mark)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	for range must(f.Watch(ended, nil)).ResultChan() {
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}
