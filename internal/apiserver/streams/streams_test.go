package streams

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	goruntime "runtime"
	"strings"
	"sync"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/apiserver/pkg/endpoints/request"
	testclock "k8s.io/utils/clock/testing"

	"lanyard.dev/internal/apiserver/mirror"
	"lanyard.dev/internal/apiserver/outage"
)

const maxLag = 10 * time.Second

var errRefused = errors.New("refused")

// policy decides about credentials and rights. Its maps hold what is refused, and why.
type policy struct {
	mu          sync.Mutex
	credentials map[string]error // by the Authorization header
	memberOf    []string         // the groups of every user
	rights      map[string]error // by the verb; a nil error is a denial
	asked       map[string]int   // how often the credential or verb was checked
	// slow, if set, blocks each check that may ask storage, until it is closed.
	slow chan struct{}
}

// credential is a Presented. The user has the name of the credential.
type credential struct {
	policy *policy
	text   string
}

func (c credential) ID() (id ID) {
	copy(id[:], c.text)
	return id
}

func (c credential) User(ctx context.Context) (user.Info, error) {
	p := c.policy
	if p.slow != nil {
		if ctx.Err() != nil {
			return nil, outage.New(errors.New("memory does not know"))
		}
		<-p.slow
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.asked[c.text]++
	if err := p.credentials[c.text]; err != nil {
		return nil, err
	}
	return &user.DefaultInfo{Name: c.text, Groups: p.memberOf}, nil
}

func (p *policy) Authorize(_ context.Context, a authorizer.Attributes) (authorizer.Decision, string, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.asked[a.GetVerb()]++
	if err, refused := p.rights[a.GetVerb()]; refused {
		return authorizer.DecisionNoOpinion, "no binding", err
	}
	return authorizer.DecisionAllow, "", nil
}

func (p *policy) set(change func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	change()
}

// count returns how often a credential or a verb was checked since the last call.
func (p *policy) count(what string) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := p.asked[what]
	p.asked[what] = 0
	return n
}

// fixture is a registry whose checks the test makes itself.
type fixture struct {
	*Registry
	*policy
	t     *testing.T
	clock *testclock.FakeClock
	ends  chan Reason // one for each stream
	chain http.Handler
}

func newFixture(t *testing.T) *fixture {
	t.Helper()
	f := &fixture{
		t: t, clock: testclock.NewFakeClock(time.Date(2026, 11, 2, 3, 4, 5, 0, time.UTC)), ends: make(chan Reason, 100),
		policy: &policy{credentials: map[string]error{}, rights: map[string]error{}, asked: map[string]int{}},
	}
	f.Registry = New(Config{
		Present:    func(r *http.Request) Presented { return credential{f.policy, r.Header.Get("Authorization")} },
		Authorizer: f.policy, MaxLag: maxLag, Clock: f.clock,
		Ended: func(why Reason, n int) {
			for range n {
				f.ends <- why
			}
		},
	})
	f.chain = f.Note(authenticate(f.Register(f.allow(http.HandlerFunc(serve)))))
	return f
}

// authenticate is the authentication of these tests. It removes the credential.
func authenticate(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		name := r.Header.Get("Authorization")
		r.Header.Del("Authorization")
		next.ServeHTTP(w, r.WithContext(request.WithUser(r.Context(), &user.DefaultInfo{Name: name})))
	})
}

// allow is the authorization of these tests. The verbs are in the query.
func (f *fixture) allow(next http.Handler) http.Handler {
	az := Recorder{f.policy}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		who, _ := request.UserFrom(r.Context())
		for _, verb := range strings.Fields(r.URL.Query().Get("verbs")) {
			of := authorizer.AttributesRecord{User: who, Verb: verb, Resource: "pods", ResourceRequest: true}
			if decision, _, _ := az.Authorize(r.Context(), of); decision != authorizer.DecisionAllow {
				w.WriteHeader(http.StatusForbidden)
				return
			}
		}
		next.ServeHTTP(w, r)
	})
}

// serve is a stream that lasts until its context ends.
func serve(w http.ResponseWriter, r *http.Request) {
	if opened, ok := r.Context().Value(openedKey{}).(chan struct{}); ok {
		close(opened)
	}
	<-r.Context().Done()
	_, _ = io.WriteString(w, context.Cause(r.Context()).Error())
}

type openedKey struct{}

// open opens a stream, and returns a channel that is closed at its end.
func (f *fixture) open(caller, verbs string) (ended chan struct{}) {
	f.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	f.t.Cleanup(cancel)
	opened := make(chan struct{})
	r := httptest.NewRequestWithContext(context.WithValue(ctx, openedKey{}, opened), http.MethodGet, "/?verbs="+strings.ReplaceAll(verbs, " ", "+"), nil)
	r.Header.Set("Authorization", caller)
	ended = make(chan struct{})
	go func() {
		defer close(ended)
		f.chain.ServeHTTP(httptest.NewRecorder(), r)
	}()
	<-opened
	f.count(caller)
	for _, verb := range strings.Fields(verbs) {
		f.count(verb)
	}
	return ended
}

// check checks all streams and returns the reasons of the ends.
func (f *fixture) check() (reasons []Reason) {
	f.t.Helper()
	f.checkAll(f.t.Context())
	f.settled()
	for {
		select {
		case why := <-f.ends:
			reasons = append(reasons, why)
		default:
			return reasons
		}
	}
}

// settled waits until no check is under way.
func (f *fixture) settled() {
	for range maxAsking {
		f.asking <- struct{}{}
	}
	for range maxAsking {
		<-f.asking
	}
	for busy := true; busy; {
		f.Registry.mu.Lock()
		busy = false
		for _, g := range f.groups {
			busy = busy || g.asking
		}
		f.Registry.mu.Unlock()
	}
}

func (f *fixture) want(what string, got []Reason, want ...Reason) {
	f.t.Helper()
	if fmt.Sprint(got) != fmt.Sprint(want) {
		f.t.Errorf("%s: ended by %v, want %v", what, got, want)
	}
}

func TestStreamsEnd(t *testing.T) {
	t.Parallel()
	stale := outage.New(fmt.Errorf("pods: %w", mirror.ErrStale))
	for name, test := range map[string]struct {
		change func(*policy)
		want   Reason
	}{
		"credential refused":  {func(p *policy) { p.credentials["jane"] = errRefused }, Credential},
		"another user":        {func(p *policy) { p.memberOf = []string{"more"} }, Credential},
		"right taken away":    {func(p *policy) { p.rights["watch"] = nil }, Rights},
		"second right":        {func(p *policy) { p.rights["impersonate"] = nil }, Rights},
		"failed decision":     {func(p *policy) { p.rights["watch"] = errRefused }, Rights},
		"both at once":        {func(p *policy) { p.rights["watch"], p.rights["impersonate"] = nil, nil }, Rights},
		"credentials unknown": {func(p *policy) { p.credentials["jane"] = stale }, Undecided},
		"rights unknown":      {func(p *policy) { p.rights["watch"] = stale }, Undecided},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t)
			ended := f.open("jane", "impersonate watch")
			f.want("unchanged", f.check())
			f.set(func() { test.change(f.policy) })
			f.want("changed", f.check(), test.want)
			<-ended
			if len(f.groups) != 0 {
				t.Errorf("%d groups are left", len(f.groups))
			}
		})
	}
}

// TestUncertainAnswers checks that an answer which is uncertain for another reason than a stale feed ends no stream until
// the last answer that accepted it is too old.
func TestUncertainAnswers(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	ended := f.open("jane", "watch")
	unknown := outage.New(errors.New("storage does not confirm"))
	f.set(func() { f.credentials["jane"] = unknown })
	f.clock.Step(maxLag - time.Second)
	f.want("not for long", f.check())
	f.set(func() { delete(f.credentials, "jane") })
	f.want("accepted again", f.check())
	f.set(func() { f.credentials["jane"] = unknown })
	f.clock.Step(maxLag - time.Second)
	f.want("not for long after that", f.check())
	f.clock.Step(time.Second)
	f.want("for too long", f.check(), Undecided)
	<-ended
}

// TestSharedChecks checks that streams with the same credential and the same request share one check, and that others do not.
func TestSharedChecks(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	var all []chan struct{}
	for range 20 {
		all = append(all, f.open("jane", "watch"))
	}
	f.open("joe", "watch")
	if f.check(); f.count("jane") != 1 || f.count("joe") != 1 {
		t.Error("a credential was not checked once")
	}
	if n := f.count("watch"); n != 2 {
		t.Errorf("%d decisions, want one for each user", n)
	}
	f.set(func() { f.credentials["jane"] = errRefused })
	if got := f.check(); len(got) != len(all) {
		t.Errorf("%d streams ended, want %d", len(got), len(all))
	}
	for _, ended := range all {
		<-ended
	}
	f.want("the other user's", f.check())
}

// TestSlowChecksDelayNoOthers checks that a stream ends although the check of another one waits for storage.
func TestSlowChecksDelayNoOthers(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.open("jane", "")
	joe := f.open("joe", "watch")
	f.slow = make(chan struct{})
	f.set(func() { f.rights["watch"] = nil })
	f.checkAll(t.Context())
	<-joe
	f.want("while a check waits", []Reason{<-f.ends}, Rights)
	f.checkAll(t.Context()) // does not start a second check of a credential
	close(f.slow)
	f.settled()
	if n := f.count("jane"); n != 1 {
		t.Errorf("%d checks of the credential, want 1", n)
	}
}

// TestChangeWhileAStreamBegins checks that a change between the authentication of a request and its registration is checked.
func TestChangeWhileAStreamBegins(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	inner := f.chain
	f.chain = f.Note(authenticate(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		f.Wake()
		<-f.wake // a check begins, and does not find the stream
		f.Register(f.allow(http.HandlerFunc(serve))).ServeHTTP(w, r)
	})))
	f.open("jane", "")
	select {
	case <-f.wake:
	default:
		t.Error("the change is not checked again")
	}
	f.chain = inner
	f.open("joe", "")
	select {
	case <-f.wake:
		t.Error("a stream that began without a change wakes the registry")
	default:
	}
}

// TestRun checks when Run checks: after Wake, and at the beginning of each second, and not during the pause after a check.
func TestRun(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); f.Run(ctx) }()
	defer func() { cancel(); <-done }()
	awaitTimer := func() {
		for !f.clock.HasWaiters() {
			goruntime.Gosched()
		}
	}
	jane := f.open("jane", "")
	awaitTimer()
	f.clock.Step(time.Second - time.Millisecond)
	f.set(func() { f.credentials["jane"] = errRefused })
	f.clock.Step(time.Millisecond) // the next second begins
	<-jane

	joe, mary := f.open("joe", ""), f.open("mary", "")
	f.set(func() { f.credentials["joe"] = errRefused })
	f.Wake()
	awaitTimer() // of the pause
	f.clock.Step(minPause)
	<-joe
	f.set(func() { f.credentials["mary"] = errRefused })
	f.Wake()
	awaitTimer()
	f.clock.Step(minPause)
	<-mary
}

func TestUntilNextSecond(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 11, 2, 3, 4, 5, 0, time.UTC)
	for since, want := range map[time.Duration]time.Duration{0: time.Second, time.Millisecond: 999 * time.Millisecond, time.Second - 1: 1} {
		if got := untilNextSecond(at.Add(since)); got != want {
			t.Errorf("%v after a second began: %v, want %v", since, got, want)
		}
	}
}

// TestRequestsThatAreIncomplete checks that a request is not served if its credential was not noted or it has no user.
func TestRequestsThatAreIncomplete(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	served := http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("the request was served") })
	for name, h := range map[string]http.Handler{"not noted": authenticate(f.Register(served)), "no user": f.Note(f.Register(served))} {
		answer := httptest.NewRecorder()
		h.ServeHTTP(answer, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil))
		if answer.Code != http.StatusInternalServerError {
			t.Errorf("%s: answered with %d", name, answer.Code)
		}
	}
}

// TestAttributesID checks that requests which an authorizer may decide differently do not share a decision.
func TestAttributesID(t *testing.T) {
	t.Parallel()
	selecting := func(fieldSelectors ...fields.Selector) authorizer.AttributesRecord {
		var all fields.Requirements
		for _, s := range fieldSelectors {
			all = append(all, s.Requirements()...)
		}
		return authorizer.AttributesRecord{User: &user.DefaultInfo{Name: "u"}, FieldSelectorRequirements: all}
	}
	of := func(u user.DefaultInfo) authorizer.AttributesRecord { return authorizer.AttributesRecord{User: &u} }
	seen := map[ID]int{}
	all := []authorizer.AttributesRecord{
		of(user.DefaultInfo{Name: "u"}), of(user.DefaultInfo{Name: "v"}), of(user.DefaultInfo{Name: "u", UID: "1"}), of(user.DefaultInfo{Name: "u1"}),
		of(user.DefaultInfo{Name: "u", Groups: []string{"a", "b"}}), of(user.DefaultInfo{Name: "u", Groups: []string{"ab"}}), of(user.DefaultInfo{Name: "u", Groups: []string{"a b"}}),
		of(user.DefaultInfo{Name: "u", Extra: map[string][]string{"a": {"b"}}}), of(user.DefaultInfo{Name: "u", Extra: map[string][]string{"a": {}, "b": {}}}),
		{User: &user.DefaultInfo{Name: "u"}, Verb: "get"}, {User: &user.DefaultInfo{Name: "u"}, APIGroup: "get"}, {User: &user.DefaultInfo{Name: "u"}, Resource: "get"},
		{User: &user.DefaultInfo{Name: "u"}, Subresource: "get"}, {User: &user.DefaultInfo{Name: "u"}, Name: "get"}, {User: &user.DefaultInfo{Name: "u"}, Namespace: "get"},
		{User: &user.DefaultInfo{Name: "u"}, Path: "get"}, {User: &user.DefaultInfo{Name: "u"}, ResourceRequest: true},
		selecting(fields.OneTermEqualSelector("spec.nodeName", "a")), selecting(fields.OneTermEqualSelector("spec.nodeName", "b")),
		selecting(fields.OneTermNotEqualSelector("spec.nodeName", "a")),
		selecting(fields.OneTermEqualSelector("x", "a"), fields.OneTermEqualSelector("y", "b")), selecting(fields.OneTermEqualSelector("x", "a} {= y b")),
	}
	for i, one := range all {
		id := attributesID(one)
		if other, ok := seen[id]; ok {
			t.Errorf("%d and %d have the same id", other, i)
		}
		seen[id] = i
		if attributesID(all[i]) != id {
			t.Errorf("%d has two ids", i)
		}
	}
}

func TestListener(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	l := f.Listener(func(obj runtime.Object) bool { return obj.(*metav1.PartialObjectMetadata).Name == "matters" })
	for name, step := range map[string]struct {
		call  func(runtime.Object)
		wakes bool
	}{"other": {l.Set, false}, "matters": {l.Set, true}, "deleted": {l.Delete, true}} {
		step.call(&metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{Name: name}})
		select {
		case <-f.wake:
			if !step.wakes {
				t.Errorf("%s wakes the registry", name)
			}
		default:
			if step.wakes {
				t.Errorf("%s does not wake the registry", name)
			}
		}
	}
}

// TestManyUndecided opens more streams than may ask storage at a time, and storage does not answer. A stream whose check has to wait
// ends when the others would.
func TestManyUndecided(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	for i := range maxAsking + 1 {
		f.open(fmt.Sprint("user", i), "watch")
	}
	f.slow = make(chan struct{})
	defer close(f.slow)
	for began := time.Now(); len(f.ends) == 0; goruntime.Gosched() {
		if time.Since(began) > 10*time.Second {
			t.Fatal("the stream whose check waits did not end")
		}
		f.checkAll(t.Context())
		f.clock.Step(time.Second)
	}
	f.want("the stream whose check waits", []Reason{<-f.ends}, Undecided)
}
