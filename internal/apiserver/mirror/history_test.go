package mirror

import (
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apiserver/pkg/storage/cacher"
)

func TestEventTimes(t *testing.T) {
	t.Parallel()
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	h := &history{}
	event := func(size int, at time.Time) time.Time {
		return h.time(&timedObject{Object: &corev1.ConfigMap{Data: map[string]string{"k": strings.Repeat("x", size)}}, at: at})
	}

	// Small events at a usual pace have their own times.
	for i := range 100 {
		at := start.Add(time.Duration(i) * 10 * time.Millisecond)
		if got := event(100, at); !got.Equal(at) {
			t.Fatalf("event %d: %v, want %v", i, got, at)
		}
	}
	// Large ones are as far apart as the cache's whole history after historyBytes, however quickly they come.
	burst := start.Add(time.Minute)
	first := event(100_000, burst)
	if !first.Equal(burst) {
		t.Errorf("the first: %v, want %v", first, burst)
	}
	last := first
	for range historyBytes / 100_000 {
		next := event(100_000, burst)
		if !next.After(last) {
			t.Fatalf("%v is not after %v", next, last)
		}
		last = next
	}
	if apart := last.Sub(first); apart < cacher.DefaultEventFreshDuration || apart > cacher.DefaultEventFreshDuration*11/10 {
		t.Errorf("%d bytes are %v apart, want %v", historyBytes, apart, cacher.DefaultEventFreshDuration)
	}
	// Afterwards the times are the real ones again.
	later := burst.Add(2 * cacher.DefaultEventFreshDuration)
	if got := event(100, later); !got.Equal(later) {
		t.Errorf("after the burst: %v, want %v", got, later)
	}
}
