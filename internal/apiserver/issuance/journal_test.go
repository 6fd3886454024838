package issuance_test

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/storage"
	"k8s.io/utils/clock"

	"lanyard.dev/internal/apiserver/issuance"
	"lanyard.dev/internal/apiserver/mirror"
	"lanyard.dev/internal/apiserver/registry/storagetest"
	"lanyard.dev/internal/ledger"
	"lanyard.dev/internal/token"
)

// replica is a journal that runs, with the storage below it.
type replica struct {
	*issuance.Journal
	storage *countedStorage
	stop    func()
}

// countedStorage counts writes, and can hold them.
type countedStorage struct {
	storage.Interface
	creates atomic.Int64
	updates atomic.Int64
	fail    atomic.Bool   // updates
	hold    chan struct{} // if set, each write waits for it or for its context
}

func (s *countedStorage) Create(ctx context.Context, key string, obj, out runtime.Object, ttl uint64) error {
	s.creates.Add(1)
	if s.hold != nil {
		select {
		case <-s.hold:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return s.Interface.Create(ctx, key, obj, out, ttl)
}

func (s *countedStorage) GuaranteedUpdate(ctx context.Context, key string, out runtime.Object, ignoreNotFound bool,
	preconditions *storage.Preconditions, update storage.UpdateFunc, cached runtime.Object,
) error {
	if s.updates.Add(1); s.fail.Load() {
		return errors.New("etcd is away")
	}
	return s.Interface.GuaranteedUpdate(ctx, key, out, ignoreNotFound, preconditions, update, cached)
}

// run runs a replica until the test ends.
func run(t testing.TB, base *storagetest.Storage, soleWriter bool, prepare ...func(*replica)) *replica {
	t.Helper()
	m := mirror.New(mirror.Config{Base: base, SoleWriter: soleWriter})
	made, feed, closeStorage, err := m.Append(base.Unserved(issuance.Resource, issuance.Codec{}), issuance.Prefix, issuance.NewObject, issuance.NewList)
	if err != nil {
		t.Fatal(err)
	}
	r := &replica{storage: &countedStorage{Interface: made}}
	r.Journal = issuance.New(issuance.Config{Storage: r.storage, Feed: feed, Memory: ledger.NewMemory(clock.RealClock{}), Clock: clock.RealClock{}})
	feed.Listen(r.Journal)
	for _, p := range prepare {
		p(r)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	var running sync.WaitGroup
	running.Go(func() { m.Run(ctx) })
	running.Go(func() { r.Run(ctx) })
	r.stop = sync.OnceFunc(func() { cancel(); running.Wait(); closeStorage() })
	t.Cleanup(r.stop)
	if err := m.WaitSynced(storagetest.In(t, "")); err != nil {
		t.Fatal(err)
	}
	r.Synced(ctx)
	return r
}

// newToken returns the record of a token that lives for an hour.
func newToken() ledger.Token {
	now := time.Now().Truncate(time.Second)
	return ledger.Token{
		ID: uuid.NewString(), Namespace: "shop", Account: "cart", AccountUID: uuid.NewString(), Audiences: []string{"api"},
		Bound:  ledger.Object{Kind: "Pod", Name: "cart-0", UID: uuid.NewString()},
		Node:   ledger.Object{Kind: "Node", Name: "n1", UID: uuid.NewString()},
		Digest: ledger.Digest(digestOf[:]), Issued: now, Expires: now.Add(time.Hour), Key: "Y-bjq70zOb_h1OzvGj2QKNLOWAliBgBoZdI6Y6nTz0Y",
		Minter: ledger.Minter{User: "system:node:n1", Credential: "X509SHA256=04adf2b65e6325a8c467256eb3a9a373d818398d9a1f1d9eca1cbc2c237fe75f", Address: "192.0.2.1", UserAgent: "lanyard"},
	}
}

// digestOf is the digest of each token of newToken.
var digestOf = sha256.Sum256([]byte("a token"))

// check checks a token of newToken.
func check(ctx context.Context, j *issuance.Journal, t ledger.Token) error {
	return j.Check(ctx, t.ID, &digestOf)
}

func newCertificate() ledger.Certificate {
	now := time.Now().Truncate(time.Second)
	return ledger.Certificate{
		ID: "04adf2b65e6325a8c467256eb3a9a373d818398d9a1f1d9eca1cbc2c237fe75f", User: "jane", Groups: []string{"dev"},
		SignerName: "kubernetes.io/kube-apiserver-client", Request: "jane-1", Issued: now, Expires: now.Add(24 * time.Hour),
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (r *replica) mustRecord(t testing.TB) ledger.Token {
	t.Helper()
	made := newToken()
	must(t, r.RecordToken(storagetest.In(t, ""), made))
	return made
}

// TestRecordsAndRevocationsSurviveARestart reads back what an earlier process wrote.
func TestRecordsAndRevocationsSurviveARestart(t *testing.T) {
	t.Parallel()
	base, ctx := storagetest.Start(t), storagetest.In(t, "")
	r := run(t, base, true)
	live, dead, certificate := r.mustRecord(t), r.mustRecord(t), newCertificate()
	must(t, r.RecordCertificate(ctx, certificate))
	must(t, r.Revoke(ctx, []ledger.Revocation{{ID: dead.ID, Expires: dead.Expires}, {ID: certificate.ID, Expires: certificate.Expires}}))
	check := func(when string, r *replica) {
		t.Helper()
		if err := check(ctx, r.Journal, live); err != nil {
			t.Errorf("%s: a live token: %v", when, err)
		}
		if err := check(ctx, r.Journal, dead); !errors.Is(err, token.ErrRevoked) {
			t.Errorf("%s: a revoked token: %v", when, err)
		}
		if err := check(ctx, r.Journal, newToken()); !errors.Is(err, token.ErrUnrecorded) {
			t.Errorf("%s: a forged token: %v", when, err)
		}
		if err := r.CheckCertificate(certificate.ID, &x509.Certificate{NotBefore: time.Now()}); !errors.Is(err, issuance.ErrRevoked) {
			t.Errorf("%s: a revoked certificate: %v", when, err)
		}
		if err := r.CheckCertificate("00"+certificate.ID[2:], &x509.Certificate{NotBefore: time.Now()}); err != nil {
			t.Errorf("%s: a certificate of another CA: %v", when, err)
		}
	}
	check("in memory", r)
	r.stop()
	if err := r.RecordToken(ctx, newToken()); !errors.Is(err, issuance.ErrEnded) {
		t.Errorf("after the end: %v", err)
	}
	again := run(t, base, true)
	check("after a restart", again)
	found, _, ok := again.Memory.Token(live.ID)
	if fmt.Sprintf("%+v", found) != fmt.Sprintf("%+v", live) || !ok {
		t.Errorf("the record is\n%+v, want\n%+v", found, live)
	}
}

// TestReplicasKnowEachOthersTokens uses a token at another replica at once, and a revoked one within a quarter of a second.
func TestReplicasKnowEachOthersTokens(t *testing.T) {
	t.Parallel()
	base, ctx := storagetest.Start(t), storagetest.In(t, "")
	revocations := make(chan int, 10)
	a := run(t, base, false, func(r *replica) { r.OnRevocation(func() { revocations <- 0 }) })
	b := run(t, base, false, func(r *replica) { r.OnRevocation(func() { revocations <- 1 }) })
	var last ledger.Token
	for range 50 {
		last = a.mustRecord(t)
		if err := check(ctx, b.Journal, last); err != nil {
			t.Fatalf("at another replica: %v", err)
		}
	}
	if err := check(ctx, b.Journal, newToken()); !errors.Is(err, token.ErrUnrecorded) {
		t.Errorf("a forged token: %v", err)
	}
	must(t, a.Revoke(ctx, []ledger.Revocation{{ID: last.ID, Expires: last.Expires}}))
	revoked := time.Now()
	if err := check(ctx, a.Journal, last); !errors.Is(err, token.ErrRevoked) {
		t.Errorf("after a revocation: %v", err)
	}
	for check(ctx, b.Journal, last) == nil && time.Since(revoked) < 20*time.Second {
		time.Sleep(time.Millisecond)
	}
	if took := time.Since(revoked); took > 250*time.Millisecond {
		t.Errorf("another replica accepted a revoked token for %v", took)
	}
	if first, second := <-revocations, <-revocations; first+second != 1 || len(revocations) > 0 {
		t.Errorf("revocations are reported by %d, %d and %d others, want each replica once", first, second, len(revocations))
	}
}

// TestUnrecordedTokensCanBeAccepted checks that with AcceptUnrecorded, a revoked token is still refused.
func TestUnrecordedTokensCanBeAccepted(t *testing.T) {
	t.Parallel()
	base, ctx := storagetest.Start(t), storagetest.In(t, "")
	r := run(t, base, false, func(r *replica) { r.AcceptUnrecorded = true })
	made := newToken()
	if err := check(ctx, r.Journal, made); err != nil {
		t.Error(err)
	}
	must(t, r.Revoke(ctx, []ledger.Revocation{{ID: made.ID, Expires: time.Now().Add(time.Hour)}}))
	if err := check(ctx, r.Journal, made); !errors.Is(err, token.ErrRevoked) {
		t.Errorf("after its revocation: %v", err)
	}
}

// TestCommitsAreShared counts the writes of many requesters.
func TestCommitsAreShared(t *testing.T) {
	t.Parallel()
	const requesters, each = 64, 20
	r := run(t, storagetest.Start(t), true)
	ctx := storagetest.In(t, "")
	ids := make(chan string, requesters*each)
	var all sync.WaitGroup
	for range requesters {
		all.Go(func() {
			for range each {
				made := newToken()
				if err := r.RecordToken(ctx, made); err != nil {
					t.Error(err)
				}
				if err := check(ctx, r.Journal, made); err != nil {
					t.Errorf("a recorded token: %v", err)
				}
				ids <- made.ID
			}
		})
	}
	all.Wait()
	close(ids)
	writes := r.storage.creates.Load()
	t.Logf("%d tokens in %d writes", requesters*each, writes)
	if writes > requesters*each/4 {
		t.Errorf("%d tokens took %d writes", requesters*each, writes)
	}
}

// TestWaitersLeaveAtTheirDeadlines checks that a storage that hangs does not hold a caller beyond its deadline, and that what
// waits is bounded.
func TestWaitersLeaveAtTheirDeadlines(t *testing.T) {
	t.Parallel()
	hold := make(chan struct{})
	r := run(t, storagetest.Start(t), true, func(r *replica) { r.storage.hold = hold })
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	var full atomic.Bool
	var all sync.WaitGroup
	for range 2 * issuance.MaxGroups {
		all.Go(func() {
			large := newToken()
			large.Audiences = slices.Repeat([]string{strings.Repeat("x", ledger.MaxText)}, issuance.MaxBytes/ledger.MaxText)
			err := r.RecordToken(ctx, large)
			if err == nil {
				t.Error("a record that was not written is durable")
			} else if !errors.Is(err, context.DeadlineExceeded) {
				full.Store(true)
			}
		})
	}
	all.Wait()
	if !full.Load() {
		t.Error("any number of groups may wait")
	}
	close(hold)
	r.stop()
}

// TestBadRecordFailsAlone records tokens together with one that cannot be encoded.
func TestBadRecordFailsAlone(t *testing.T) {
	t.Parallel()
	r := run(t, storagetest.Start(t), true)
	ctx := storagetest.In(t, "")
	bad := []func(*ledger.Token){
		func(t *ledger.Token) { t.ID = "" },
		func(t *ledger.Token) { t.Audiences = []string{"\xff"} },
		func(t *ledger.Token) { t.Audiences = make([]string, ledger.MaxList+1) },
		func(t *ledger.Token) { t.Minter.User = strings.Repeat("x", ledger.MaxText+1) },
	}
	var all sync.WaitGroup
	for i := range 40 {
		all.Go(func() {
			made := newToken()
			if i%2 == 0 {
				bad[i/2%len(bad)](&made)
			}
			if err := r.RecordToken(ctx, made); (err != nil) != (i%2 == 0) {
				t.Errorf("record %d: %v", i, err)
			}
		})
	}
	all.Wait()
}
