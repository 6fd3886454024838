package nodeaccess_test

import (
	"errors"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"lanyard.dev/internal/nodeaccess"
)

type unfresh struct{ err error }

func (u unfresh) Fresh() error { return u.err }

var evictedAt = time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)

func evicted(name, node string, at time.Time) *corev1.Secret {
	s := nodeaccess.NewEviction(node)
	s.Name, s.CreationTimestamp = name, metav1.NewTime(at)
	return s
}

func TestEvictionRefusesWhatWasValidBefore(t *testing.T) {
	t.Parallel()
	e := nodeaccess.NewEvictions(unfresh{})
	check := func(when, node string, notBefore time.Time, admitted bool) {
		t.Helper()
		if err := e.Admits(node, notBefore); (err == nil) != admitted || err != nil && !errors.Is(err, nodeaccess.ErrEvicted) {
			t.Errorf("%s, node %s with a certificate of %v: %v, want admitted %t", when, node, notBefore, err, admitted)
		}
	}
	check("before", "a", evictedAt, true)
	e.Set(evicted("one", "a", evictedAt))
	for _, test := range []struct {
		node     string
		after    time.Duration
		admitted bool
	}{
		{"a", -24 * time.Hour, false}, {"a", -time.Second, false}, {"a", 0, false}, {"a", 999 * time.Millisecond, false},
		{"a", time.Second, true}, {"a", time.Hour, true}, {"b", -time.Hour, true}, {"", -time.Hour, true},
	} {
		check("evicted", test.node, evictedAt.Add(test.after), test.admitted)
	}
	e.Set(evicted("two", "a", evictedAt.Add(time.Hour)))
	check("evicted again", "a", evictedAt.Add(time.Minute), false)
	e.Set(evicted("one", "a", evictedAt)) // reported again, as after a new list
	check("reported again", "a", evictedAt.Add(time.Minute), false)
	e.Delete(&metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{Namespace: "kube-system", Name: "two"}})
	check("the later record gone", "a", evictedAt.Add(time.Minute), true)
	check("the later record gone", "a", evictedAt, false)
	e.Delete(&metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{Namespace: "other", Name: "one"}})
	check("another namespace's secret gone", "a", evictedAt, false)
	e.Delete(evicted("one", "a", evictedAt))
	check("all records gone", "a", evictedAt, true)
}

// TestEvictionChangedToAnotherNode checks that a Secret that is not immutable evicts the node that it names now, and not the node
// that it named before. After a restart, the result is the same.
func TestEvictionChangedToAnotherNode(t *testing.T) {
	t.Parallel()
	e := nodeaccess.NewEvictions(unfresh{})
	e.Set(evicted("one", "a", evictedAt))
	e.Set(evicted("other", "a", evictedAt.Add(-time.Hour)))
	e.Set(evicted("one", "b", evictedAt))
	for node, want := range map[string]time.Time{"a": evictedAt.Add(-time.Hour + time.Second), "b": evictedAt.Add(time.Second)} {
		if got, err := e.Earliest(node); err != nil || !got.Equal(want) {
			t.Errorf("certificates of node %s are accepted from %v, %v, want %v", node, got, err, want)
		}
	}
}

// TestLatestRemainingEviction removes a record of a node that has several: the latest of the other records applies.
func TestLatestRemainingEviction(t *testing.T) {
	t.Parallel()
	for range 30 {
		e := nodeaccess.NewEvictions(unfresh{})
		for i, name := range []string{"one", "two", "three"} {
			e.Set(evicted(name, "a", evictedAt.Add(time.Duration(i)*time.Hour)))
		}
		e.Delete(evicted("three", "a", evictedAt.Add(2*time.Hour)))
		if got, err := e.Earliest("a"); err != nil || !got.Equal(evictedAt.Add(time.Hour+time.Second)) {
			t.Fatalf("got %v, %v, want a second after the second eviction", got, err)
		}
	}
}

func TestSecretsThatEvictNoNode(t *testing.T) {
	t.Parallel()
	e := nodeaccess.NewEvictions(unfresh{})
	elsewhere, opaque, unnamed, odd := evicted("s", "a", evictedAt), evicted("s", "a", evictedAt), evicted("s", "", evictedAt), evicted("s", "A b", evictedAt)
	elsewhere.Namespace, opaque.Type = "default", corev1.SecretTypeOpaque
	for _, s := range []*corev1.Secret{elsewhere, opaque, unnamed, odd} {
		e.Set(s)
		if err := e.Admits("a", evictedAt.Add(-time.Hour)); err != nil {
			t.Errorf("%s/%s of type %s: %v", s.Namespace, s.Data["node"], s.Type, err)
		}
	}
}

func TestEvictionsOfAUser(t *testing.T) {
	t.Parallel()
	e := nodeaccess.NewEvictions(unfresh{})
	e.Set(evicted("one", "a", evictedAt))
	nodes := []string{"system:nodes"}
	for _, test := range []struct {
		user              string
		groups, notBefore []string
		admitted          bool
	}{
		{"system:node:a", nodes, []string{"2026-06-01T12:00:00Z"}, false},
		{"system:node:a", nodes, []string{"2026-06-01T12:00:01Z"}, true},
		{"system:node:a", nodes, []string{"garbage"}, false},
		{"system:node:a", nodes, nil, true}, // impersonated: there is no certificate
		{"system:node:a", nil, []string{"2026-06-01T12:00:00Z"}, true},
		{"jane", nodes, []string{"2026-06-01T12:00:00Z"}, true},
	} {
		if err := e.AdmitsUser(test.user, test.groups, test.notBefore); (err == nil) != test.admitted {
			t.Errorf("%+v: %v", test, err)
		}
	}
}

func TestEvictionsThatMayBeBehind(t *testing.T) {
	t.Parallel()
	behind := errors.New("behind")
	e := nodeaccess.NewEvictions(unfresh{behind})
	if err := e.Admits("a", evictedAt); !errors.Is(err, behind) || errors.Is(err, nodeaccess.ErrEvicted) {
		t.Errorf("got %v, want that nothing is known", err)
	}
}
