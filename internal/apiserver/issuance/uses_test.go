package issuance_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"k8s.io/apiserver/pkg/storage"
	testclock "k8s.io/utils/clock/testing"

	"lanyard.dev/internal/apiserver/issuance"
	"lanyard.dev/internal/apiserver/registry/storagetest"
	"lanyard.dev/internal/ledger"
)

// stored returns the names of all objects.
func (r *replica) stored(t *testing.T) (names []string) {
	t.Helper()
	var list issuance.List
	must(t, r.storage.GetList(storagetest.In(t, ""), issuance.Prefix, storage.ListOptions{Predicate: storage.Everything, Recursive: true}, &list))
	for _, o := range list.Items {
		names = append(names, o.Name)
	}
	return names
}

// TestUsesAreShared writes the last uses of one token at two replicas, and reads them after a restart.
func TestUsesAreShared(t *testing.T) {
	t.Parallel()
	base, ctx := storagetest.Start(t), storagetest.In(t, "")
	now := testclock.NewFakeClock(time.Now())
	clocked := func(r *replica) { r.Clock = now }
	a, b := run(t, base, false, clocked), run(t, base, false, clocked)
	both, one := a.mustRecord(t), a.mustRecord(t)
	must(t, b.Settle(ctx))
	a.Used(both.ID, "192.0.2.1")
	a.Used(one.ID, "192.0.2.2")
	a.Used("unknown", "192.0.2.9")
	if _, use, _ := a.Memory.Token(one.ID); use.Address != "192.0.2.2" {
		t.Errorf("before it is written, the last use is %+v", use)
	}
	must(t, a.WriteUses(ctx))
	must(t, b.Settle(ctx))
	if _, use, _ := b.Memory.Token(one.ID); use.Address != "192.0.2.2" {
		t.Errorf("at another replica, the last use is %+v", use)
	}
	now.Step(time.Second) // uses are kept to the second
	b.Used(both.ID, "192.0.2.3")
	must(t, b.WriteUses(ctx))
	before := a.storage.updates.Load()
	must(t, a.WriteUses(ctx))
	if n := a.storage.updates.Load() - before; n != 0 {
		t.Errorf("%d writes although nothing was used", n)
	}
	for range 3 {
		now.Step(time.Second)
		a.Used(both.ID, "192.0.2.4")
		must(t, a.WriteUses(ctx))
	}
	objects := 0
	for _, name := range a.stored(t) {
		if strings.HasPrefix(name, "uses-") {
			objects++
		}
	}
	if objects < 1 || objects > 2 {
		t.Errorf("%d objects of the uses of two tokens", objects)
	}
	again := run(t, base, false)
	for id, want := range map[string]string{both.ID: "192.0.2.4", one.ID: "192.0.2.2"} {
		if _, use, ok := again.Memory.Token(id); use.Address != want || use.At.IsZero() || !ok {
			t.Errorf("after a restart, the last use is %+v, want the address %s", use, want)
		}
	}
}

// TestUsesThatCannotBeWrittenAreKept writes uses once the storage is back.
func TestUsesThatCannotBeWrittenAreKept(t *testing.T) {
	t.Parallel()
	base, ctx := storagetest.Start(t), storagetest.In(t, "")
	r := run(t, base, true)
	made := r.mustRecord(t)
	r.Used(made.ID, "192.0.2.1")
	r.storage.fail.Store(true)
	if err := r.WriteUses(ctx); err == nil {
		t.Error("no error although the storage is away")
	}
	r.storage.fail.Store(false)
	must(t, r.WriteUses(ctx))
	r.stop()
	if _, use, _ := run(t, base, true).Memory.Token(made.ID); use.Address != "192.0.2.1" {
		t.Errorf("after a restart, the last use is %+v", use)
	}
}

// TestExpiredBatchesAreDeletedAtTheStart starts a replica long after a batch has expired, as when etcd has renewed its lease.
func TestExpiredBatchesAreDeletedAtTheStart(t *testing.T) {
	t.Parallel()
	base := storagetest.Start(t)
	r := run(t, base, true)
	r.mustRecord(t)
	certificate := newCertificate()
	must(t, r.RecordCertificate(storagetest.In(t, ""), certificate))
	r.stop()
	later := run(t, base, true, func(r *replica) {
		r.Clock = testclock.NewFakeClock(time.Now().Add(2 * time.Hour))
		r.Memory = ledger.NewMemory(r.Clock)
	})
	deadline := time.Now().Add(20 * time.Second)
	for len(later.stored(t)) != 1 && time.Now().Before(deadline) {
		time.Sleep(time.Millisecond)
	}
	if names := later.stored(t); len(names) != 1 {
		t.Errorf("stored are %v, want the batch of the certificate alone", fmt.Sprint(names))
	}
	if state := later.Memory.State(certificate.ID); state != ledger.Live {
		t.Errorf("the certificate is %v", state)
	}
}
