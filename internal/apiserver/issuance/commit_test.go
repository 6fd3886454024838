package issuance

import (
	"runtime"
	"testing"
	"time"

	clocktesting "k8s.io/utils/clock/testing"

	"lanyard.dev/internal/ledger"
)

// TestGather checks how long a batch waits for more records: for as many as there were callers, or for the limit.
func TestGather(t *testing.T) {
	t.Parallel()
	clock := clocktesting.NewFakeClock(time.Now())
	j := New(Config{Clock: clock})
	join := func() {
		if _, err := j.join(1, func(*ledger.Batch) {}); err != nil {
			t.Error(err)
		}
	}
	gather := func(callers int) chan struct{} {
		gathered := make(chan struct{})
		go func() {
			defer close(gathered)
			j.gather(t.Context(), callers, time.Second)
		}()
		return gathered
	}
	stillWaits := func(gathered chan struct{}) {
		t.Helper()
		for waits := false; !waits; waits = clock.HasWaiters() {
			select {
			case <-gathered:
				t.Fatal("the batch does not wait")
			default:
				runtime.Gosched()
			}
		}
	}

	<-gather(1) // a lone caller
	join()
	waiting := gather(3)
	stillWaits(waiting)
	join()
	stillWaits(waiting)
	join()
	<-waiting
	<-gather(3) // as many wait already
	if g := j.take(); g.records != 3 {
		t.Errorf("the batch has %d records, want 3", g.records)
	}

	join()
	waiting = gather(3)
	stillWaits(waiting)
	clock.Step(time.Second)
	<-waiting
}
