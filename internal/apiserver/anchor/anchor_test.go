package anchor_test

import (
	"context"
	"errors"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"

	"lanyard.dev/internal/apiserver/anchor"
	"lanyard.dev/internal/token"
)

// source is a feed that is fresh if err is nil.
type source struct{ err error }

func (s *source) Fresh() error { return s.err }

func account(name, uid string) *corev1.ServiceAccount {
	return &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: name, UID: types.UID(uid)}}
}

func find(t *testing.T, x *anchor.Index, name string) (token.Anchor, bool) {
	t.Helper()
	a, found, err := x.Find(t.Context(), "ns", name)
	if err != nil {
		t.Fatalf("find %s: %v", name, err)
	}
	return a, found
}

// TestIndexFollowsItsFeed creates, recreates and deletes an account.
func TestIndexFollowsItsFeed(t *testing.T) {
	t.Parallel()
	x := anchor.NewIndex(&source{}, nil)
	if _, found := find(t, x, "robot"); found {
		t.Error("an empty index has an account")
	}
	x.Set(account("robot", "first"))
	if a, found := find(t, x, "robot"); !found || a.UID != "first" {
		t.Errorf("got %+v, %v", a, found)
	}
	if _, found, _ := x.Find(t.Context(), "other", "robot"); found {
		t.Error("an account is found in another namespace")
	}
	x.Set(account("robot", "second"))
	if a, _ := find(t, x, "robot"); a.UID != "second" {
		t.Errorf("after a re-creation: %+v", a)
	}
	x.Delete(&metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "robot"}})
	if a, found := find(t, x, "robot"); found {
		t.Errorf("after a deletion with metadata only: %+v", a)
	}
}

// TestIndexKeepsAnchorFields checks which fields of a pod the index keeps, and that it copies them.
func TestIndexKeepsAnchorFields(t *testing.T) {
	t.Parallel()
	ends := time.Date(2026, 8, 1, 12, 0, 0, 0, time.UTC)
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "p", UID: "u", DeletionTimestamp: &metav1.Time{Time: ends}},
		Spec:       corev1.PodSpec{ServiceAccountName: "robot", NodeName: "n1"},
	}
	x := anchor.NewIndex(&source{}, nil)
	x.Set(pod)
	// The request that wrote the object may change it.
	pod.Spec.ServiceAccountName, pod.DeletionTimestamp.Time = "changed", time.Time{}
	got, _ := find(t, x, "p")
	want := token.Anchor{UID: "u", DeletionTimestamp: ends, ServiceAccountName: "robot", NodeName: "n1"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// TestStaleIndex checks that an index that may be out of date returns an error, whether or not it has the anchor.
func TestStaleIndex(t *testing.T) {
	t.Parallel()
	stale := errors.New("stale")
	feed := &source{}
	x := anchor.NewIndex(feed, func(context.Context, types.NamespacedName) (runtime.Object, bool, error) {
		t.Error("Find read the storage")
		return nil, false, nil
	})
	x.Set(account("robot", "u"))
	feed.err = stale
	for _, name := range []string{"robot", "missing"} {
		a, found, err := x.Find(t.Context(), "ns", name)
		if !errors.Is(err, stale) || found || a != (token.Anchor{}) {
			t.Errorf("%s: got %+v, %v, %v", name, a, found, err)
		}
	}
}

// TestStored checks that Stored reads the storage, which differs from memory in everything here.
func TestStored(t *testing.T) {
	t.Parallel()
	broken := errors.New("etcd is away")
	x := anchor.NewIndex(&source{errors.New("stale")}, func(_ context.Context, name types.NamespacedName) (runtime.Object, bool, error) {
		switch name {
		case types.NamespacedName{Namespace: "ns", Name: "robot"}:
			return account("robot", "stored"), true, nil
		case types.NamespacedName{Namespace: "ns", Name: "broken"}:
			return account("broken", "half read"), true, broken
		case types.NamespacedName{Namespace: "ns", Name: "strange"}:
			return &runtime.Unknown{}, true, nil
		}
		return nil, false, nil
	})
	x.Set(account("robot", "remembered"))
	x.Set(account("gone", "remembered"))
	stored := anchor.Stored(x, x, x, x)
	for _, test := range []struct {
		name  string
		want  token.Anchor
		found bool
		err   error
	}{
		{"robot", token.Anchor{UID: "stored"}, true, nil},
		{"gone", token.Anchor{}, false, nil},
		{"broken", token.Anchor{}, false, broken},
		{"strange", token.Anchor{}, false, nil},
	} {
		got, found, err := stored.Pod(t.Context(), "ns", test.name)
		if got != test.want || found != test.found || !errors.Is(err, test.err) {
			t.Errorf("%s: %+v, %v, %v, want %+v, %v, %v", test.name, got, found, err, test.want, test.found, test.err)
		}
	}
	sole := anchor.NewIndex(&source{}, nil)
	sole.Set(account("robot", "remembered"))
	if got, found, err := anchor.Stored(sole, sole, sole, sole).Secret(t.Context(), "ns", "robot"); got.UID != "remembered" || !found || err != nil {
		t.Errorf("the sole writer: %+v, %v, %v", got, found, err)
	}
}

// TestObjectWithoutMetadata checks that an index ignores what has no metadata.
func TestObjectWithoutMetadata(t *testing.T) {
	t.Parallel()
	x := anchor.NewIndex(&source{}, nil)
	x.Set(&runtime.Unknown{})
	if _, found, _ := x.Find(t.Context(), "", ""); found {
		t.Error("an object without metadata is an anchor")
	}
	x.Set(account("", "u"))
	x.Delete(&runtime.Unknown{})
}

// TestAnchorsUseTheirOwnIndex checks that each method looks into the index of its resource.
func TestAnchorsUseTheirOwnIndex(t *testing.T) {
	t.Parallel()
	of := func(uid, namespace string) *anchor.Index {
		x := anchor.NewIndex(&source{}, nil)
		x.Set(&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "x", UID: types.UID(uid)}})
		return x
	}
	all := anchor.Remembered(of("account", "ns"), of("pod", "ns"), of("secret", "ns"), of("node", ""))
	ctx := t.Context()
	for want, find := range map[string]func() (token.Anchor, bool, error){
		"account": func() (token.Anchor, bool, error) { return all.ServiceAccount(ctx, "ns", "x") },
		"pod":     func() (token.Anchor, bool, error) { return all.Pod(ctx, "ns", "x") },
		"secret":  func() (token.Anchor, bool, error) { return all.Secret(ctx, "ns", "x") },
		"node":    func() (token.Anchor, bool, error) { return all.Node(ctx, "x") },
	} {
		if a, found, err := find(); err != nil || !found || a.UID != want {
			t.Errorf("%s: got %+v, %v, %v", want, a, found, err)
		}
	}
}

// TestIndexIsSafeForConcurrentUse runs writers and readers in parallel.
func TestIndexIsSafeForConcurrentUse(t *testing.T) {
	t.Parallel()
	x := anchor.NewIndex(&source{}, nil)
	var running sync.WaitGroup
	for i := range 4 {
		running.Go(func() {
			name := "robot" + strconv.Itoa(i)
			for n := range 200 {
				x.Set(account(name, strconv.Itoa(n)))
				if a, found, err := x.Find(context.Background(), "ns", name); err != nil || !found || a.UID != strconv.Itoa(n) {
					t.Errorf("%s: got %+v, %v, %v, want UID %d", name, a, found, err, n)
					return
				}
				x.Delete(account(name, ""))
			}
		})
	}
	running.Wait()
}

func BenchmarkFind(b *testing.B) {
	x := anchor.NewIndex(&source{}, nil)
	for i := range 10_000 {
		x.Set(account("robot"+strconv.Itoa(i), "u"))
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, found, err := x.Find(context.Background(), "ns", "robot77"); !found || err != nil {
			b.Fatal(found, err)
		}
	}
}
