package rotation

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"lanyard.dev/internal/signingkey"
)

var (
	start  = time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC)
	policy = Policy{Period: 7 * 24 * time.Hour, Lead: 70 * time.Minute, Linger: 10 * time.Minute, Kept: 24 * time.Hour}
)

// tokens has the number of live tokens of each key. A negative number is not known.
type tokens map[string]int

func (l tokens) LiveTokens(kid string) (int, error) {
	if l[kid] < 0 {
		return 0, errors.New("the ledger is behind")
	}
	return l[kid], nil
}

// ring is a Ring under test, with a clock.
type ring struct {
	Ring
	t      *testing.T
	policy Policy
	live   tokens
	now    time.Time
}

func newRing(t *testing.T, p Policy) *ring {
	return &ring{t: t, policy: p, live: tokens{}, now: start}
}

// advance moves the clock and returns what changed.
func (r *ring) advance(by time.Duration) []Change {
	r.t.Helper()
	r.now = r.now.Add(by)
	next, made, err := r.policy.Advance(r.Ring, r.now, r.live)
	if err != nil {
		r.t.Fatal(err)
	}
	r.Ring = next
	return made
}

// states returns the states of the keys in the order of their creation.
func (r *ring) states() (all []State) {
	for _, k := range r.keys {
		all = append(all, k.State())
	}
	return all
}

func (r *ring) want(states ...State) {
	r.t.Helper()
	if got := r.states(); !slices.Equal(got, states) {
		r.t.Fatalf("after %v: states %v, want %v", r.now.Sub(start), got, states)
	}
}

func (r *ring) signer() *signingkey.PrivateKey {
	r.t.Helper()
	set, err := policy.Set(r.Ring)
	if err != nil {
		r.t.Fatal(err)
	}
	return set.Signer("")
}

// TestLifeOfAKey follows the first keys of an authority through every state.
func TestLifeOfAKey(t *testing.T) {
	t.Parallel()
	r := newRing(t, policy)
	if set, err := policy.Set(r.Ring); err != nil || set.Signer("") != nil || len(set.Keys()) != 0 {
		t.Fatalf("an empty ring has the set %v, %v", set, err)
	}
	made := r.advance(0)
	r.want(Signing)
	first := r.signer().ID()
	if len(made) != 2 || made[1] != (Change{first, Signing, signingkey.ES256}) {
		t.Errorf("changes %v", made)
	}
	r.live[first] = 3

	r.advance(policy.Period - policy.Lead - time.Second)
	r.want(Signing)
	r.advance(time.Second)
	r.want(Signing, Published)
	r.advance(policy.Lead - time.Second)
	r.want(Signing, Published)
	if r.signer().ID() != first {
		t.Error("a published key signs")
	}
	made = r.advance(time.Second)
	r.want(Verifying, Signing)
	second := r.signer().ID()
	if diff := cmp.Diff([]Change{{first, Verifying, signingkey.ES256}, {second, Signing, signingkey.ES256}}, made); diff != "" {
		t.Errorf("changes (-want +got):\n%s", diff)
	}
	if r.keys[0].Private != nil {
		t.Error("a key that has stopped to sign still has its private part")
	}

	r.advance(24 * time.Hour)
	r.want(Verifying, Signing)
	r.live[first] = 0
	made = r.advance(time.Minute)
	r.want(Retired, Signing)
	if diff := cmp.Diff([]Change{{first, Retired, signingkey.ES256}}, made); diff != "" {
		t.Errorf("changes (-want +got):\n%s", diff)
	}
	if set, err := policy.Set(r.Ring); err != nil || len(set.Keys()) != 1 {
		t.Errorf("the set has the keys %v, %v", set.Keys(), err)
	}
	if made := r.advance(0); made != nil {
		t.Errorf("a second call at the same time made %v", made)
	}
}

// TestAKeyLingers checks that a key without live tokens is accepted for the shortest time, and one whose tokens cannot be counted
// for longer.
func TestAKeyLingers(t *testing.T) {
	t.Parallel()
	r := newRing(t, policy)
	r.advance(0)
	first := r.signer().ID()
	r.advance(policy.Period)
	r.advance(policy.Lead)
	r.want(Verifying, Signing)
	r.advance(policy.Linger - time.Second)
	r.want(Verifying, Signing)
	r.live[first] = -1
	next, made, err := policy.Advance(r.Ring, r.now.Add(time.Hour), r.live)
	if err == nil || made != nil || next.keys[0].State() != Verifying {
		t.Errorf("tokens that cannot be counted: %v, %v", made, err)
	}
	r.live[first] = 0
	r.advance(time.Second)
	r.want(Retired, Signing)
}

// TestALongStandstill lets an authority stand still for a month: the late key is not replaced by one that nobody knows.
func TestALongStandstill(t *testing.T) {
	t.Parallel()
	r := newRing(t, policy)
	r.advance(0)
	r.advance(30 * 24 * time.Hour)
	r.want(Signing, Published)
	r.advance(policy.Lead)
	r.want(Verifying, Signing)
}

// TestManyPeriods lets a thousand keys come and go, with a call each 10 minutes. There is always one that signs, each has been
// published for long enough, and the ring does not grow.
func TestManyPeriods(t *testing.T) {
	t.Parallel()
	p := policy
	p.Period = 6 * time.Hour
	r := newRing(t, p)
	published, signed := map[string]time.Time{}, 0
	for signed < 1000 {
		for _, change := range r.advance(10 * time.Minute) {
			switch change.State {
			case Published:
				published[change.Key] = r.now
			case Signing:
				if waited := r.now.Sub(published[change.Key]); waited < p.Lead && signed > 0 {
					t.Fatalf("key %d signs %v after it was published", signed, waited)
				}
				signed++
			}
		}
		if r.signer() == nil {
			t.Fatal("no key signs")
		}
		if len(r.keys) > maxEnded+3 {
			t.Fatalf("%d keys", len(r.keys))
		}
	}
	if took := r.now.Sub(start); took > 1001*(p.Period+20*time.Minute) {
		t.Errorf("1000 keys took %v", took)
	}
}

// TestPublish requests new keys before they are due.
func TestPublish(t *testing.T) {
	t.Parallel()
	r := newRing(t, policy)
	r.advance(0)
	r.advance(time.Hour)
	var key Key
	var err error
	if r.Ring, key, err = policy.Publish(r.Ring, "", r.now); err != nil {
		t.Fatal(err)
	}
	r.want(Signing, Published)
	if from := policy.SignsFrom(key); !from.Equal(r.now.Add(policy.Lead)) {
		t.Errorf("signs from %v", from)
	}
	if _, again, err := policy.Publish(r.Ring, signingkey.ES256, r.now); !errors.Is(err, ErrPublished) || again.ID != key.ID {
		t.Errorf("a second request: %v, %v", again, err)
	}
	r.advance(policy.Lead)
	r.want(Verifying, Signing)
	if r.signer().ID() != key.ID {
		t.Error("another key signs")
	}
}

// TestRevoke revokes a key in each state.
func TestRevoke(t *testing.T) {
	t.Parallel()
	r := newRing(t, policy)
	r.advance(0)
	first := r.signer().ID()
	r.live[first] = 1
	r.advance(policy.Period)
	r.advance(policy.Lead)
	r.advance(policy.Period)
	r.want(Verifying, Signing, Published)
	revoke := func(from Ring, id string) *ring {
		t.Helper()
		next, made, err := policy.Revoke(from, id, r.now)
		if err != nil || len(made) == 0 {
			t.Fatalf("revoke: %v, %v", made, err)
		}
		set, err := policy.Set(next)
		if err != nil || set.Signer("") == nil || len(set.Find(id)) != 0 {
			t.Errorf("after the revocation of %s: %v, %v", id, set, err)
		}
		if _, _, err := policy.Revoke(next, id, r.now); !errors.Is(err, ErrNotFound) {
			t.Errorf("revoked again: %v", err)
		}
		return &ring{Ring: next, t: t, now: r.now}
	}
	revoke(r.Ring, first).want(Revoked, Signing, Published)
	revoke(r.Ring, r.keys[2].ID).want(Verifying, Signing, Revoked)
	after := revoke(r.Ring, r.keys[1].ID)
	after.want(Verifying, Revoked, Revoked, Signing)
	if after.signer().ID() != after.keys[3].ID {
		t.Error("another key signs")
	}
	if _, _, err := policy.Revoke(r.Ring, "other", r.now); !errors.Is(err, ErrNotFound) {
		t.Errorf("an unknown key: %v", err)
	}
}

// TestTakeOver takes over keys in an empty ring and in one with keys.
func TestTakeOver(t *testing.T) {
	t.Parallel()
	old, other, further := must(signingkey.Generate(signingkey.RS256)), must(signingkey.Generate(signingkey.RS256)), must(signingkey.Generate(signingkey.ES384))
	written := start.Add(-30 * 24 * time.Hour)
	r := newRing(t, policy)
	var made []Change
	if r.Ring, made = policy.TakeOver(r.Ring, []File{{old, written}, {other, written}, {further, written}}, start); len(made) != 3 {
		t.Fatalf("changes %v", made)
	}
	r.want(Signing, Verifying, Signing)
	set := must(policy.Set(r.Ring))
	if set.Signer(signingkey.RS256) != old || set.Signer(signingkey.ES384) != further {
		t.Error("other keys sign")
	}
	if next, made := policy.TakeOver(r.Ring, []File{{old, start}}, start); made != nil || len(next.keys) != 3 {
		t.Errorf("taken over again: %v", made)
	}

	// A key keeps its age, so the next one is due, and its algorithm, which no option names.
	r = newRing(t, policy)
	r.Ring, _ = policy.TakeOver(r.Ring, []File{{old, written}}, start)
	r.advance(0)
	r.want(Signing, Published)
	r.advance(policy.Lead)
	r.want(Verifying, Signing)
	if r.signer().Algorithm() != signingkey.RS256 {
		t.Errorf("the algorithm became %s", r.signer().Algorithm())
	}
	r.advance(policy.Kept - time.Second)
	r.want(Verifying, Signing)
	r.advance(time.Second)
	r.want(Retired, Signing)
	if _, made := policy.TakeOver(r.Ring, []File{{old, written}}, r.now); made != nil {
		t.Errorf("a retired key was taken over: %v", made)
	}
	r.Ring, _ = policy.TakeOver(r.Ring, []File{{other, r.now.Add(time.Hour)}}, r.now)
	r.want(Retired, Signing, Verifying)
	if r.keys[2].Created.After(r.now) {
		t.Error("a key was created in the future")
	}
}

// TestRevokedFileStaysRevoked revokes a key that was taken over, and then more keys than there are records kept of. The key must not
// come back when the next start finds its file.
func TestRevokedFileStaysRevoked(t *testing.T) {
	t.Parallel()
	old := must(signingkey.Generate(""))
	r, _ := policy.TakeOver(Ring{}, []File{{old, start}}, start)
	id := old.ID()
	for i := range 2 * maxEnded {
		next, _, err := policy.Revoke(r, id, start.Add(time.Duration(i)*time.Second))
		if err != nil {
			t.Fatal(err)
		}
		r, id = next, next.Accepted()[0].ID
	}
	if len(r.keys) > maxEnded+2 {
		t.Errorf("%d records", len(r.keys))
	}
	if next, made := policy.TakeOver(r, []File{{old, start}}, start.Add(time.Hour)); made != nil || len(next.Accepted()) != 1 {
		t.Errorf("the revoked key is accepted again: %v", made)
	}
}

// TestAlgorithms changes the algorithms of a policy.
func TestAlgorithms(t *testing.T) {
	t.Parallel()
	r := newRing(t, policy)
	r.advance(0)
	algorithm := func() signingkey.Algorithm {
		t.Helper()
		set, err := r.policy.Set(r.Ring)
		if err != nil {
			t.Fatal(err)
		}
		return set.Signer("").Algorithm()
	}
	// A second algorithm has a key at once, since nothing else can sign its tokens.
	r.policy.Algorithms = []signingkey.Algorithm{"", signingkey.ES384}
	r.advance(time.Hour)
	r.want(Signing, Signing)
	if algorithm() != signingkey.ES256 {
		t.Errorf("signs with %s", algorithm())
	}
	// Another preferred algorithm waits until its key is known.
	r.policy.Algorithms = []signingkey.Algorithm{signingkey.ES512, signingkey.ES384}
	r.advance(time.Hour)
	r.want(Signing, Signing, Published)
	if algorithm() != signingkey.ES256 {
		t.Errorf("signs with %s before the key of ES512 is known", algorithm())
	}
	r.advance(policy.Lead)
	r.want(Signing, Signing, Signing)
	if algorithm() != signingkey.ES512 {
		t.Errorf("signs with %s", algorithm())
	}
	// The key of the algorithm that is not named any more stops with its period.
	r.now = start.Add(policy.Period)
	r.advance(0)
	r.want(Verifying, Signing, Signing, Published)

	// A revoked key of such an algorithm has no successor.
	r = newRing(t, policy)
	r.advance(0)
	r.policy.Algorithms = []signingkey.Algorithm{signingkey.ES384}
	r.advance(0)
	r.advance(policy.Lead)
	r.want(Signing, Signing)
	var err error
	if r.Ring, _, err = r.policy.Revoke(r.Ring, r.keys[0].ID, r.now); err != nil {
		t.Fatal(err)
	}
	r.want(Revoked, Signing)
}

// TestNoRotation checks a policy without a period: a key changes on request only.
func TestNoRotation(t *testing.T) {
	t.Parallel()
	p := policy
	p.Period = 0
	r := newRing(t, p)
	r.advance(0)
	r.advance(1000 * 24 * time.Hour)
	r.want(Signing)
	r.Ring, _, _ = p.Publish(r.Ring, "", r.now)
	r.advance(p.Lead)
	r.want(Verifying, Signing)
}

// TestTooManyKeys lets each key keep a live token.
func TestTooManyKeys(t *testing.T) {
	t.Parallel()
	r := newRing(t, policy)
	for range MaxAccepted {
		r.keys = append(r.keys, must(newKey("", start)))
	}
	for i := range r.keys {
		r.keys[i].stop(start)
		r.live[r.keys[i].ID] = 1
	}
	last := &r.keys[MaxAccepted-1]
	*last = must(newKey("", start))
	last.sign(start)
	next, made, err := policy.Advance(r.Ring, start.Add(policy.Period), r.live)
	if !errors.Is(err, ErrFull) || made != nil || next.count() != MaxAccepted {
		t.Errorf("%d keys, %v, %v", next.count(), made, err)
	}
	if _, _, err := policy.Publish(r.Ring, "", start); !errors.Is(err, ErrFull) {
		t.Errorf("publish: %v", err)
	}
	if next, _, err = policy.Revoke(r.Ring, last.ID, start); err != nil || next.count() != MaxAccepted {
		t.Errorf("revoke: %d keys, %v", next.count(), err)
	}
	if set, err := policy.Set(next); err != nil || set.Signer("") == nil {
		t.Errorf("set %v, %v", set, err)
	}
}

// TestAClockThatWasWrong corrects times in the future, which would stop the rotation.
func TestAClockThatWasWrong(t *testing.T) {
	t.Parallel()
	r := newRing(t, policy)
	r.now = start.Add(1000 * 24 * time.Hour)
	r.advance(0)
	r.now = start
	r.advance(0)
	if r.keys[0].Signed != start || r.keys[0].Created != start {
		t.Errorf("created %v, signs since %v", r.keys[0].Created, r.keys[0].Signed)
	}
	r.advance(policy.Period)
	r.want(Signing, Published)
	r.now = r.now.Add(-MaxSkew)
	before := r.keys[1].Created
	if r.advance(0); r.keys[1].Created != before {
		t.Error("a clock within the permitted difference changed a time")
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}
