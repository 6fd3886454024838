package token

import (
	"context"
	"errors"
	"maps"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"lanyard.dev/internal/signingkey"
)

func TestVerifyIdentity(t *testing.T) {
	t.Parallel()
	f := newFixture(t, es256Key())
	for _, tt := range []struct {
		name  string
		req   Request
		extra map[string][]string
	}{
		{"account", request(), map[string][]string{}},
		{"pod", podRequest(), map[string][]string{
			ExtraPodName: {"cart-0"}, ExtraPodUID: {"pod-1"}, ExtraNodeName: {"n1"}, ExtraNodeUID: {"node-1"},
		}},
		{"secret", boundTo(nil, &Ref{"cart-token", "secret-1"}, nil), map[string][]string{}},
		{"node", boundTo(nil, nil, &Ref{"n1", "node-1"}), map[string][]string{
			ExtraNodeName: {"n1"}, ExtraNodeUID: {"node-1"},
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			text, claims, err := f.issuer.Issue(t.Context(), tt.req)
			if err != nil {
				t.Fatal(err)
			}
			tt.extra[ExtraCredentialID] = []string{"JTI=" + claims.ID}
			want := Identity{
				Name: "system:serviceaccount:shop:cart", UID: "sa-1", Namespace: "shop", ServiceAccount: "cart",
				Groups: []string{"system:serviceaccounts", "system:serviceaccounts:shop"}, Extra: tt.extra,
				Audiences: []string{testAudience}, Claims: claims, ExpiresAt: testNow.Add(time.Hour),
			}
			for _, state := range []string{"cold", "hot"} {
				got, err := f.verify(text)
				if err != nil {
					t.Fatalf("%s: %v", state, err)
				}
				if diff := cmp.Diff(want, got); diff != "" {
					t.Errorf("%s identity (-want +got):\n%s", state, diff)
				}
				_ = append(got.Groups, "system:authenticated")
			}
		})
	}
}

// replica returns a fixture with a storage that other processes write, and with the same objects in its memory.
func (f *fixture) replica(t *testing.T) *objects {
	t.Helper()
	stored := &objects{items: maps.Clone(f.objects.items)}
	f.verifier.stored = stored
	return stored
}

// TestStorageDecidesWhatMemoryRefuses changes objects in storage only, as another replica does.
func TestStorageDecidesWhatMemoryRefuses(t *testing.T) {
	t.Parallel()
	anew := podRequest()
	anew.Pod = &Ref{"cart-0", "pod-2"}
	account := request()
	account.ServiceAccount.UID = "sa-2"
	away := errors.New("etcd is away")
	for _, tt := range []struct {
		name   string
		req    Request
		memory func(*objects)
		stored func(*objects)
		want   error
	}{
		{"pod made anew", anew, nil, func(o *objects) {
			o.set("pod", "shop", "cart-0", Anchor{UID: "pod-2", ServiceAccountName: "cart", NodeName: "n1"})
		}, nil},
		{"account made anew", account, nil, func(o *objects) { o.set("serviceaccount", "shop", "cart", Anchor{UID: "sa-2"}) }, nil},
		{"account that memory does not have", request(), func(o *objects) { o.remove("serviceaccount", "shop", "cart") }, nil, nil},
		{"pod that is nowhere", anew, nil, nil, ErrPodGone},
		{"account removed from memory alone", request(), nil, func(o *objects) { o.remove("serviceaccount", "shop", "cart") }, nil},
		{"storage away", anew, nil, func(o *objects) { o.stale = away }, ErrAnchorsStale},
		{"memory stale", request(), func(o *objects) { o.stale = away }, nil, ErrAnchorsStale},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t, es256Key())
			stored := f.replica(t)
			for o, change := range map[*objects]func(*objects){f.objects: tt.memory, stored: tt.stored} {
				if change != nil {
					change(o)
				}
			}
			text := f.issue(t, tt.req)
			for i := range 2 { // the first answer must not change the second
				if _, err := f.verify(text); !errors.Is(err, tt.want) {
					t.Errorf("answer %d: got %v, want %v", i+1, err, tt.want)
				}
			}
		})
	}
}

// TestRefusedTokenReadsStorageSeldom checks that a refused token is looked up in storage once in confirmedFor, however often
// and by how many callers it is presented.
func TestRefusedTokenReadsStorageSeldom(t *testing.T) {
	t.Parallel()
	f := newFixture(t, es256Key())
	stored := f.replica(t)
	text := f.issue(t, request())
	for _, o := range []*objects{f.objects, stored} {
		o.remove("serviceaccount", "shop", "cart")
	}
	refused := func(times, want int) {
		t.Helper()
		for range times {
			if _, err := f.verify(text); !errors.Is(err, ErrAccountGone) {
				t.Errorf("got %v, want %v", err, ErrAccountGone)
			}
		}
		if stored.asked != want {
			t.Errorf("storage was asked %d times, want %d", stored.asked, want)
		}
	}
	refused(5, 1)
	f.clock.SetTime(testNow.Add(confirmedFor - 1))
	refused(5, 1)
	f.clock.SetTime(testNow.Add(confirmedFor))
	refused(5, 2)

	f.clock.SetTime(testNow.Add(2 * confirmedFor))
	stored.hold = make(chan struct{})
	ctx, cancel := context.WithCancelCause(t.Context())
	var running sync.WaitGroup
	var impatient, patient error
	running.Go(func() { _, impatient = f.verifier.Verify(ctx, text, []string{testAudience}) })
	running.Go(func() { _, patient = f.verify(text) })
	answered := make(chan struct{})
	go func() { running.Wait(); close(answered) }()
	for asked := 2; asked < 3; { // until one of them queries storage
		select {
		case <-answered:
			t.Fatalf("storage was not asked: %v, %v", impatient, patient)
		case <-time.After(time.Millisecond):
		}
		stored.mu.Lock()
		asked = stored.asked
		stored.mu.Unlock()
	}
	gone := errors.New("the client has gone")
	cancel(gone)
	for range 5 {
		done, stop := context.WithCancel(t.Context())
		stop()
		if _, err := f.verifier.Verify(done, text, []string{testAudience}); !errors.Is(err, ErrAnchorsStale) {
			t.Errorf("while storage is asked: %v, want %v", err, ErrAnchorsStale)
		}
	}
	close(stored.hold)
	running.Wait()
	if !errors.Is(impatient, ErrAnchorsStale) || !errors.Is(impatient, gone) {
		t.Errorf("a caller that gave up: %v, want %v", impatient, gone)
	}
	if !errors.Is(patient, ErrAccountGone) {
		t.Errorf("a caller beside it: %v, want %v", patient, ErrAccountGone)
	}
	if stored.asked > 4 {
		t.Errorf("storage was asked %d times for seven callers at once", stored.asked-2)
	}
}

// slowPods is a storage whose look-up of a pod ends when proceed is closed.
type slowPods struct {
	*objects
	reached chan struct{} // receives a value from each look-up
	proceed chan struct{}
}

func (s *slowPods) Pod(ctx context.Context, namespace, name string) (Anchor, bool, error) {
	s.reached <- struct{}{}
	<-s.proceed
	return s.objects.Pod(ctx, namespace, name)
}

// TestDeletionDuringAConfirmation checks that a verification that begins after a deletion does not use the result of a
// look-up that began before.
func TestDeletionDuringAConfirmation(t *testing.T) {
	t.Parallel()
	f := newFixture(t, es256Key())
	stored := &slowPods{objects: f.replica(t), reached: make(chan struct{}, 1), proceed: make(chan struct{})}
	f.verifier.stored = stored
	text := f.issue(t, boundTo(&Ref{Name: "cart-0", UID: "pod-1"}, nil, nil))
	f.objects.remove("serviceaccount", "shop", "cart") // memory does not have it yet
	var before error
	var running sync.WaitGroup
	running.Go(func() { _, before = f.verify(text) })
	<-stored.reached // the account was found
	stored.remove("serviceaccount", "shop", "cart")
	after := make([]error, 20)
	for i := range after {
		running.Go(func() { _, after[i] = f.verify(text) })
	}
	for asked := 0; asked < 1+len(after); time.Sleep(time.Millisecond) { // until each has queried memory
		f.objects.mu.Lock()
		asked = f.objects.asked
		f.objects.mu.Unlock()
	}
	close(stored.proceed)
	running.Wait()
	if before != nil {
		t.Errorf("the verification that began before the deletion: %v", before)
	}
	for _, err := range after {
		if !errors.Is(err, ErrAccountGone) {
			t.Fatalf("one that began after it: %v, want %v", err, ErrAccountGone)
		}
	}
}

func boundTo(pod, secret, node *Ref) Request {
	r := request()
	r.Pod, r.Secret, r.Node = pod, secret, node
	return r
}

func TestVerifyIntersectsAudiences(t *testing.T) {
	t.Parallel()
	f := newFixture(t, es256Key())
	r := request()
	r.Audiences = []string{"a", "b", "c"}
	text := f.issue(t, r)
	for _, tt := range []struct{ requested, want []string }{
		{[]string{"a"}, []string{"a"}},
		{[]string{"z", "c", "b"}, []string{"b", "c"}},
		{[]string{"c", "b", "a", "z"}, []string{"a", "b", "c"}},
	} {
		id, err := f.verifier.Verify(context.Background(), text, tt.requested)
		if diff := cmp.Diff(tt.want, id.Audiences); err != nil || diff != "" {
			t.Errorf("requested %q: %v\n%s", tt.requested, err, diff)
		}
	}
}

func TestVerifyFollowsAnchors(t *testing.T) {
	t.Parallel()
	pod, secret, node := podRequest(), boundTo(nil, &Ref{"cart-token", "secret-1"}, nil), boundTo(nil, nil, &Ref{"n1", "node-1"})
	deleted := func(ago time.Duration) time.Time { return testNow.Add(-ago) }
	for _, tt := range []struct {
		name   string
		req    Request
		change func(*objects)
		want   error
	}{
		{"account removed", request(), func(o *objects) { o.remove("serviceaccount", "shop", "cart") }, ErrAccountGone},
		{"account created anew", request(), func(o *objects) { o.set("serviceaccount", "shop", "cart", Anchor{UID: "sa-2"}) }, ErrAccountGone},
		{"account being deleted", request(), func(o *objects) {
			o.set("serviceaccount", "shop", "cart", Anchor{UID: "sa-1", DeletionTimestamp: deleted(time.Minute)})
		}, nil},
		{"account deleted long ago", request(), func(o *objects) {
			o.set("serviceaccount", "shop", "cart", Anchor{UID: "sa-1", DeletionTimestamp: deleted(time.Minute + 1)})
		}, ErrAccountGone},
		{"account of a pod removed", pod, func(o *objects) { o.remove("serviceaccount", "shop", "cart") }, ErrAccountGone},
		{"pod removed", pod, func(o *objects) { o.remove("pod", "shop", "cart-0") }, ErrPodGone},
		{"pod of an account token removed", request(), func(o *objects) { o.remove("pod", "shop", "cart-0") }, nil},
		{"pod created anew", pod, func(o *objects) {
			o.set("pod", "shop", "cart-0", Anchor{UID: "pod-2", ServiceAccountName: "cart"})
		}, ErrPodGone},
		{"pod shutting down", pod, func(o *objects) {
			o.set("pod", "shop", "cart-0", Anchor{UID: "pod-1", ServiceAccountName: "cart", DeletionTimestamp: deleted(-30 * time.Second)})
		}, nil},
		{"pod over its grace", pod, func(o *objects) {
			o.set("pod", "shop", "cart-0", Anchor{UID: "pod-1", ServiceAccountName: "cart", DeletionTimestamp: deleted(61 * time.Second)})
		}, ErrPodGone},
		{"pod of another account", pod, func(o *objects) {
			o.set("pod", "shop", "cart-0", Anchor{UID: "pod-1", ServiceAccountName: "admin"})
		}, ErrPodGone},
		{"pod on another node", pod, func(o *objects) {
			o.set("pod", "shop", "cart-0", Anchor{UID: "pod-1", ServiceAccountName: "cart", NodeName: "n2"})
		}, ErrPodGone},
		{"node of a pod removed", pod, func(o *objects) { o.remove("node", "", "n1") }, ErrNodeGone},
		{"node of a pod created anew", pod, func(o *objects) { o.set("node", "", "n1", Anchor{UID: "node-2"}) }, ErrNodeGone},
		{"node of a pod being deleted", pod, func(o *objects) {
			o.set("node", "", "n1", Anchor{UID: "node-1", DeletionTimestamp: testNow})
		}, ErrNodeGone},
		{"node being deleted", node, func(o *objects) {
			o.set("node", "", "n1", Anchor{UID: "node-1", DeletionTimestamp: deleted(time.Minute)})
		}, nil},
		{"secret removed", secret, func(o *objects) { o.remove("secret", "shop", "cart-token") }, ErrSecretGone},
		{"secret created anew", secret, func(o *objects) { o.set("secret", "shop", "cart-token", Anchor{UID: "secret-2"}) }, ErrSecretGone},
		{"secret deleted long ago", secret, func(o *objects) {
			o.set("secret", "shop", "cart-token", Anchor{UID: "secret-1", DeletionTimestamp: deleted(time.Hour)})
		}, ErrSecretGone},
		{"node removed", node, func(o *objects) { o.remove("node", "", "n1") }, ErrNodeGone},
		{"node created anew", node, func(o *objects) { o.set("node", "", "n1", Anchor{UID: "node-2"}) }, ErrNodeGone},
		{"node deleted long ago", node, func(o *objects) {
			o.set("node", "", "n1", Anchor{UID: "node-1", DeletionTimestamp: deleted(time.Hour)})
		}, ErrNodeGone},
		{"memory stale", request(), func(o *objects) { o.stale = errors.New("watch is 12s behind") }, ErrAnchorsStale},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t, es256Key())
			text := f.issue(t, tt.req)
			if _, err := f.verify(text); err != nil {
				t.Fatalf("before the change: %v", err)
			}
			tt.change(f.objects)
			if _, err := f.verify(text); !errors.Is(err, tt.want) {
				t.Errorf("after the change: %v, want %v", err, tt.want)
			}
		})
	}
}

func TestVerifyRecreatedAccountDoesNotReviveTokens(t *testing.T) {
	t.Parallel()
	f := newFixture(t, es256Key())
	text := f.issue(t, request())
	f.objects.remove("serviceaccount", "shop", "cart")
	f.objects.set("serviceaccount", "shop", "cart", Anchor{UID: "sa-2"})
	_, err := f.verify(text)
	const want = `service account token has been invalidated: service account is gone: ` +
		`service account "shop/cart" is another object of the same name`
	if err == nil || err.Error() != want {
		t.Errorf("Verify = %v\nwant %s", err, want)
	}
}

func TestVerifyFollowsTheClock(t *testing.T) {
	t.Parallel()
	f := newFixture(t, es256Key())
	text := f.issue(t, request())
	for _, step := range []struct {
		after time.Duration
		want  error
	}{
		{0, nil}, {-time.Minute, nil}, {-61 * time.Second, ErrNotYetValid},
		{time.Hour - time.Nanosecond, nil}, {time.Hour, ErrExpired}, {0, nil},
	} {
		f.clock.SetTime(testNow.Add(step.after))
		if _, err := f.verify(text); !errors.Is(err, step.want) {
			t.Errorf("after %v: %v, want %v", step.after, err, step.want)
		}
	}
}

func TestVerifyFollowsKeys(t *testing.T) {
	t.Parallel()
	f := newFixture(t, es256Key())
	before := f.issue(t, request())
	if _, err := f.verify(before); err != nil {
		t.Fatal(err)
	}
	next := mustGenerate(signingkey.ES256)
	both, err := signingkey.NewSet(next, f.key.Public())
	if err != nil {
		t.Fatal(err)
	}
	f.keys.rotate(both)
	after := f.issue(t, request())
	for _, text := range []string{before, after} {
		if _, err := f.verify(text); err != nil {
			t.Errorf("with both keys: %v", err)
		}
	}
	only, err := signingkey.NewSet(next)
	if err != nil {
		t.Fatal(err)
	}
	f.keys.rotate(only)
	if _, err := f.verify(before); !errors.Is(err, ErrUnknownKey) {
		t.Errorf("cached token of a withdrawn key: %v, want %v", err, ErrUnknownKey)
	}
	if _, err := f.verify(after); err != nil {
		t.Errorf("token of the new key: %v", err)
	}
}

func TestVerifyConcurrently(t *testing.T) {
	t.Parallel()
	f := newFixture(t, es256Key())
	tokens := make([]string, 40)
	for i := range tokens {
		tokens[i] = f.issue(t, podRequest())
	}
	f.verifier.cache = newFactsCache(shardCount) // so small that entries are evicted all the time
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for _, text := range tokens {
				if id, err := f.verify(text); err != nil || !strings.HasPrefix(text, "ey") || id.UID != "sa-1" {
					t.Errorf("Verify = %q, %v", id.UID, err)
				}
			}
		})
	}
	wg.Wait()
}

func TestNewVerifierRefusesMissingParts(t *testing.T) {
	t.Parallel()
	f := newFixture(t, es256Key())
	good := VerifierConfig{Issuers: []string{testIssuer}, Keys: f.keys, Anchors: f.objects, Ledger: f.ledger, Clock: f.clock}
	for name, change := range map[string]func(*VerifierConfig){
		"issuers":      func(c *VerifierConfig) { c.Issuers = nil },
		"empty issuer": func(c *VerifierConfig) { c.Issuers = []string{testIssuer, ""} },
		"keys":         func(c *VerifierConfig) { c.Keys = nil },
		"anchors":      func(c *VerifierConfig) { c.Anchors = nil },
		"clock":        func(c *VerifierConfig) { c.Clock = nil },
	} {
		c := good
		change(&c)
		if _, err := NewVerifier(c); err == nil {
			t.Errorf("%s missing, yet accepted", name)
		}
	}
}

func TestCacheSize(t *testing.T) {
	t.Parallel()
	f := newFixture(t, es256Key())
	for size, want := range map[int]int{-1: DefaultCacheSize, 0: DefaultCacheSize, 1: shardCount, 4 * shardCount: 4 * shardCount} {
		v, err := NewVerifier(VerifierConfig{Issuers: []string{testIssuer}, Keys: f.keys, Anchors: f.objects, Ledger: f.ledger, Clock: f.clock, CacheSize: size})
		if err != nil {
			t.Fatal(err)
		}
		// Add twice as many entries as there is room for.
		for i := range 2 * want {
			v.cache.put(&digest{byte(i), byte(i >> 8), byte(i >> 16)}, new(facts))
		}
		got := 0
		for _, shard := range v.cache {
			got += shard.Len()
		}
		if got != want {
			t.Errorf("CacheSize %d: room for %d tokens, want %d", size, got, want)
		}
	}
}

func TestCacheKeepsTheRecentlyUsed(t *testing.T) {
	t.Parallel()
	c := newFactsCache(2 * shardCount)
	key := func(i byte) *digest { return &digest{0, i} } // all in shard 0
	first, second, third := new(facts), new(facts), new(facts)
	c.put(key(1), first)
	c.put(key(2), second)
	if c.get(key(1)) != first {
		t.Fatal("first entry missing")
	}
	c.put(key(3), third)
	if c.get(key(1)) != first || c.get(key(2)) != nil || c.get(key(3)) != third {
		t.Error("the least recently used entry should have gone, and no other")
	}
	if n := c[0].Len(); n != 2 {
		t.Errorf("shard holds %d entries, want 2", n)
	}
}

// TestVerifyFollowsTheLedger checks that a token is accepted only while the ledger has its record, also once its facts are cached.
func TestVerifyFollowsTheLedger(t *testing.T) {
	t.Parallel()
	f := newFixture(t, es256Key())
	text, claims, err := f.issuer.Issue(t.Context(), request())
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []error{ErrUnrecorded, nil, ErrLedgerStale, ErrRevoked} {
		f.ledger.refuse(claims.ID, want)
		if _, err := f.verify(text); !errors.Is(err, want) {
			t.Errorf("got %v, want %v", err, want)
		}
	}
	if Undecided(ErrRevoked) || Undecided(ErrUnrecorded) || !Undecided(ErrLedgerStale) || !Undecided(ErrAnchorsStale) {
		t.Error("the wrong errors are undecided")
	}
}
