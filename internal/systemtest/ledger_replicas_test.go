// Promise: replicas accept each token that was issued, and no other, until it is revoked or its objects are deleted, through
// crashes of replicas and of etcd.

package systemtest

import (
	"cmp"
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"sync"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"lanyard.dev/internal/signingkey"
	"lanyard.dev/internal/token"
)

var (
	ledgerTime = flag.Duration("ledger-time", 8*time.Second, "how long TestLedgerModel crashes its replicas")
	ledgerSeed = flag.Uint64("ledger-seed", 0, "the seed of TestLedgerModel; 0 takes a random one")
)

// TestLedgerModel sends random requests to three replicas while replicas and members of etcd crash, and compares each answer with
// a naive model. A replica may answer 503 while it cannot decide, and must not guess. The seed determines the requests of each
// worker, but not how the requests of all follow each other.
func TestLedgerModel(t *testing.T) {
	t.Parallel()
	seed := cmp.Or(*ledgerSeed, rand.Uint64())
	t.Logf("to repeat: -ledger-seed=%d", seed)
	site := newReplicaSite(t)
	site.replicas[0].start(t)
	awaitReady(t, site.replicas[0])
	workers := prepareWorkers(t, site, seed)
	// They read the roles and namespaces at their start.
	site.replicas[1].start(t)
	site.replicas[2].start(t)
	awaitReady(t, site.replicas...)

	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var running sync.WaitGroup
	defer running.Wait()
	for _, w := range workers {
		running.Go(func() { w.run(ctx) })
	}
	site.disturb(t, rand.New(rand.NewPCG(seed, 0)))
	stop()
	running.Wait()
	for _, w := range workers {
		running.Go(w.compareAll)
	}
	running.Wait()
	for i, w := range workers {
		t.Logf("worker %d: %d tokens, %d answers, %d requests without an answer; another replica accepted %d times a token that had ended, up to %v later",
			i, len(w.tokens), w.answered, w.unavailable, w.late, w.latest.Round(time.Millisecond))
	}
}

// prepareWorkers creates what four workers need, at the first replica.
func prepareWorkers(t *testing.T, site *replicaSite, seed uint64) (workers []*modelWorker) {
	t.Helper()
	client := clientFor(t, site.replicas[0].config)
	everyAccount := rbacv1.Subject{APIGroup: rbacv1.GroupName, Kind: rbacv1.GroupKind, Name: "system:serviceaccounts"}
	bindClusterRole(t, client, "request-tokens", everyAccount, rbacRule("", "serviceaccounts/token", "create"))
	key, err := signingkey.LoadPrivate(site.file("sa.key"))
	must(t, err)
	f := forger{t: t, key: key, issuer: siteIssuer, request: token.Request{Audiences: []string{siteIssuer}, Lifetime: time.Hour}}
	for i := range 4 {
		namespace := fmt.Sprint("worker-", i)
		_, err := client.CoreV1().Namespaces().Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}}, metav1.CreateOptions{})
		must(t, err)
		w := newModelWorker(t, site, namespace, rand.New(rand.NewPCG(seed, uint64(i)+1)), f)
		for _, s := range w.slots {
			w.createObject(s, site.replicas[0])
		}
		workers = append(workers, w)
	}
	return workers
}

// disturb crashes replicas and members, each kind of crash in turn, until the time is over and each has happened once.
func (s *replicaSite) disturb(t *testing.T, random *rand.Rand) {
	t.Helper()
	crashes := []struct {
		name string
		do   func()
	}{
		{"kill a replica", func() { restart(t, random, syscall.SIGKILL, &s.replicas[random.IntN(3)].child) }},
		{"end a replica", func() { restart(t, random, syscall.SIGTERM, &s.replicas[random.IntN(3)].child) }},
		{"pause a replica", func() { s.replicas[random.IntN(3)].pause(t, rand.N(pauseLimit())) }},
		// A replica that watches this member is behind the others.
		{"pause a member", func() { s.members[random.IntN(3)].pause(t, rand.N(2*time.Second)) }},
		{"kill a member", func() { restart(t, random, syscall.SIGKILL, s.members[random.IntN(3)]) }},
		{"kill two members", func() { restart(t, random, syscall.SIGKILL, s.members[0], s.members[1]) }},
		{"kill a replica and a member", func() {
			restart(t, random, syscall.SIGKILL, s.members[random.IntN(3)], &s.replicas[random.IntN(3)].child)
		}},
	}
	for until, first := time.Now().Add(*ledgerTime), true; (first || time.Now().Before(until)) && !t.Failed(); first = false {
		random.Shuffle(len(crashes), func(i, j int) { crashes[i], crashes[j] = crashes[j], crashes[i] })
		for _, crash := range crashes {
			t.Log(crash.name)
			crash.do()
			awaitReady(t, s.replicas...)
		}
	}
}

// pauseLimit returns how long a replica is paused at most: in a long test longer than it may accept what has ended.
func pauseLimit() time.Duration {
	if *ledgerTime > time.Minute {
		return stalest + 5*time.Second
	}
	return 2 * time.Second
}

// restart ends processes, and starts them again after a moment.
func restart(t *testing.T, random *rand.Rand, signal syscall.Signal, all ...*child) {
	t.Helper()
	for _, c := range all {
		c.end(t, signal)
	}
	time.Sleep(time.Duration(random.IntN(500)) * time.Millisecond) // any moment
	for _, c := range all {
		c.start(t)
	}
}
