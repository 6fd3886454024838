package gctune

import (
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"testing"
	"time"
)

func TestPercent(t *testing.T) {
	t.Parallel()
	const mib = 1 << 20
	for name, tt := range map[string]struct {
		live, scanned uint64
		want          int
	}{
		"before the first collection": {0, 0, 200},
		"idle authority":              {30 * mib, 20 * mib, 200},
		"where the bound begins":      {40 * mib, 20 * mib, 200},
		"a little more":               {50 * mib, 20 * mib, 161},
		"ten thousand bindings":       {70 * mib, 55 * mib, 200},
		"a million tokens":            {280 * mib, 25 * mib, 29},
		"objects with pointers":       {1000 * mib, 500 * mib, 151},
		"only pointers":               {1000 * mib, 1000 * mib, 200},
	} {
		if got := percent(tt.live, tt.scanned); got != tt.want {
			t.Errorf("%s: %d, want %d", name, got, tt.want)
		}
	}
}

// TestTune checks that a large heap without pointers grows little before a collection, and a small one as much as before.
func TestTune(t *testing.T) {
	if os.Getenv("GOGC") != "" {
		t.Skip("GOGC is set")
	}
	defer debug.SetGCPercent(debug.SetGCPercent(100))
	Tune()
	slab := make([]byte, 200<<20)
	awaitRoom(t, "with a slab", func(room uint64) bool { return room > 70<<20 && room < 100<<20 })
	runtime.KeepAlive(slab)
	awaitRoom(t, "without the slab", func(room uint64) bool { return room < 70<<20 && percentNow() == smallPercent })
}

// awaitRoom collects garbage until the heap may grow by as much as want accepts.
func awaitRoom(t *testing.T, state string, want func(room uint64) bool) {
	t.Helper()
	var room uint64
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); {
		runtime.GC()
		goal := []metrics.Sample{{Name: "/gc/heap/goal:bytes"}}
		metrics.Read(goal)
		live, _ := heap()
		if room = goal[0].Value.Uint64() - live; want(room) {
			return
		}
		runtime.Gosched()
	}
	t.Errorf("%s: the heap may grow by %d MiB at %d %%", state, room>>20, percentNow())
}

func percentNow() int {
	value := []metrics.Sample{{Name: "/gc/gogc:percent"}}
	metrics.Read(value)
	return int(value[0].Value.Uint64())
}
