// Promise: a killed authority loses neither a token that it has issued nor a revocation that it has acknowledged.

package systemtest

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	identity "lanyard.dev/apis/identity/v1alpha1"
	"lanyard.dev/internal/token"
)

var ledgerKills = flag.Int("ledger-kills", 10, "how many times TestLedgerSurvivesKills kills the authority")

const defaultTokenPath = "/api/v1/namespaces/default/serviceaccounts/default/token"

// issuedTokensPath returns the path of the IssuedTokens of a namespace.
func issuedTokensPath(namespace string) string {
	return "/apis/" + identity.GroupName + "/v1alpha1/namespaces/" + namespace + "/issuedtokens"
}

// heldToken is a token that was issued, and what is known about its revocation.
type heldToken struct {
	id, text string
	// asked is whether its revocation was requested. revoked is whether the authority has acknowledged it, or has shown after a
	// restart that it took effect.
	asked, revoked bool
}

// revoker issues tokens and revokes some of them.
type revoker struct {
	random *rand.Rand
	held   []*heldToken
	recent int // the index of the first token of the current round
	acked  *atomic.Int64
}

// run issues and revokes until a request has no answer.
func (r *revoker) run(t *testing.T, c *caller) {
	for {
		step := r.issue
		if len(r.held) > r.recent && r.random.IntN(3) == 0 {
			step = r.revoke
		}
		if !step(t, c) {
			return
		}
		r.acked.Add(1)
	}
}

// answered sends a request, and reports whether it has an answer. The answer must have the code.
func (r *revoker) answered(t *testing.T, c *caller, method, path string, body []byte, code int, into any) bool {
	got, err := c.try(t.Context(), method, path, body)
	if err != nil {
		return false
	}
	if got.code != code {
		t.Errorf("%s %s: %s, want %d", method, path, got, code)
		return false
	}
	if err := json.Unmarshal(got.body, into); err != nil {
		t.Error(err)
	}
	return true
}

func (r *revoker) issue(t *testing.T, c *caller) bool {
	var request authenticationv1.TokenRequest
	if !r.answered(t, c, http.MethodPost, defaultTokenPath, []byte(`{}`), http.StatusCreated, &request) {
		return false
	}
	_, id := token.Names(request.Status.Token)
	r.held = append(r.held, &heldToken{id: id, text: request.Status.Token})
	return true
}

func (r *revoker) revoke(t *testing.T, c *caller) bool {
	held := r.held[r.recent+r.random.IntN(len(r.held)-r.recent)]
	if held.revoked {
		return true
	}
	held.asked = true
	held.revoked = r.answered(t, c, http.MethodDelete, issuedTokensPath(metav1.NamespaceDefault)+"/"+held.id, nil, http.StatusOK, &metav1.Status{})
	return held.revoked
}

// settle compares the records of the authority with the tokens, and learns which revocations without an answer took effect.
func (r *revoker) settle(t *testing.T, recorded map[string]bool) {
	t.Helper()
	for _, held := range r.held {
		switch {
		case held.asked && !held.revoked:
			held.revoked = !recorded[held.id]
		case recorded[held.id] == held.revoked:
			t.Errorf("token %s: recorded %v, acknowledged as revoked %v", held.id, recorded[held.id], held.revoked)
		}
		delete(recorded, held.id)
	}
}

// sample returns the tokens of the last round, and some earlier ones.
func (r *revoker) sample() []*heldToken {
	some := slices.Clone(r.held[r.recent:])
	for range min(r.recent, 20) {
		some = append(some, r.held[r.random.IntN(r.recent)])
	}
	return some
}

// revokers are several of them that run at the same time.
type revokers struct {
	all     []*revoker
	acked   atomic.Int64
	running sync.WaitGroup
}

func newRevokers(n int) *revokers {
	w := &revokers{}
	for id := range n {
		w.all = append(w.all, &revoker{random: rand.New(rand.NewPCG(uint64(id), 0)), acked: &w.acked})
	}
	return w
}

// start starts all of them, and returns when 50 requests were answered.
func (w *revokers) start(t *testing.T, c *caller) {
	t.Helper()
	before := w.acked.Load()
	for _, r := range w.all {
		r.recent = len(r.held)
		w.running.Go(func() { r.run(t, c) })
	}
	eventually(t, "tokens are issued and revoked", func(context.Context) bool { return w.acked.Load() >= before+50 })
}

// check compares everything that was acknowledged with what the authority says after a restart.
func (w *revokers) check(t *testing.T, c, anyone *caller) {
	t.Helper()
	recorded := recordedTokens(t, c, metav1.NamespaceDefault)
	var tokens []*heldToken
	for _, r := range w.all {
		r.settle(t, recorded)
		tokens = append(tokens, r.sample()...)
	}
	next := make(chan *heldToken)
	var checking sync.WaitGroup
	for range 8 {
		checking.Go(func() {
			for held := range next {
				if err := held.check(t.Context(), c, anyone); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for _, held := range tokens {
		next <- held
	}
	close(next)
	checking.Wait()
}

// check uses the token and reads its record.
func (h *heldToken) check(ctx context.Context, c, anyone *caller) error {
	got, err := anyone.try(ctx, http.MethodPost, whoAmIPath, []byte(`{}`), "Authorization", "Bearer "+h.text)
	accepted, err := yesOrNo(got, err, http.StatusCreated, http.StatusUnauthorized)
	if err != nil || accepted == h.revoked {
		return fmt.Errorf("token %s: accepted %v, revoked %v: %v", h.id, accepted, h.revoked, err)
	}
	got, err = c.try(ctx, http.MethodGet, issuedTokensPath(metav1.NamespaceDefault)+"/"+h.id, nil)
	found, err := yesOrNo(got, err, http.StatusOK, http.StatusNotFound)
	if err != nil || found == h.revoked {
		return fmt.Errorf("record of token %s: found %v, revoked %v: %v", h.id, found, h.revoked, err)
	}
	return nil
}

// recordedTokens returns the IDs of the recorded tokens of a namespace, which it reads in pages.
func recordedTokens(t *testing.T, c *caller, namespace string) map[string]bool {
	t.Helper()
	ids, next := map[string]bool{}, ""
	for {
		var page identity.IssuedTokenList
		c.must(t, http.MethodGet, issuedTokensPath(namespace)+"?limit=1000&continue="+url.QueryEscape(next), nil).decode(t, &page)
		for i := range page.Items {
			ids[page.Items[i].Name] = true
		}
		if next = page.Continue; next == "" {
			return ids
		}
	}
}

// TestLedgerSurvivesKills kills the authority again and again while clients issue and revoke tokens.
func TestLedgerSurvivesKills(t *testing.T) {
	t.Parallel()
	kills := *ledgerKills
	if testing.Short() {
		kills = min(kills, 3)
	}
	h, w := newUpServer(t), newRevokers(8)
	for range kills {
		p := h.start(t)
		c, anyone := callerFor(t, h.config(t)), overHTTP1(t, h.config(t))
		w.check(t, c, anyone)
		w.start(t, c)
		time.Sleep(rand.N(200 * time.Millisecond)) // any moment
		if _, err := p.end(t, syscall.SIGKILL); err == nil {
			t.Error("a killed program ended without an error")
		}
		w.running.Wait()
	}
	p := h.start(t)
	w.check(t, callerFor(t, h.config(t)), overHTTP1(t, h.config(t)))
	if _, err := p.end(t, syscall.SIGTERM); err != nil {
		t.Errorf("the last start ended with %v", err)
	}
	issued, revoked := 0, 0
	for _, r := range w.all {
		issued += len(r.held)
		for _, held := range r.held {
			if held.revoked {
				revoked++
			}
		}
	}
	t.Logf("%d tokens issued and %d revoked over %d kills", issued, revoked, kills)
}
