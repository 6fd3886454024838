package tokenvolume

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

// fakeNode is a node with many pods whose tokens are reviewed.
type fakeNode struct {
	authority *authority
	tokens    *Tokens
	pods      []*corev1.Pod
	first     map[types.UID]string // the pods' first tokens

	mu      sync.Mutex
	refused []string // "POD: REASON", in the order of the calls
	renewed map[types.UID]int
}

func newFakeNode(t *testing.T, pods int, source *corev1.ServiceAccountTokenProjection) *fakeNode {
	t.Helper()
	h := &fakeNode{authority: &authority{key: "key-1"}, first: map[types.UID]string{}, renewed: map[types.UID]int{}}
	h.tokens = running(t, TokensConfig{
		Request: h.authority.request, Review: h.authority.review,
		Account: func(_, name string) types.UID {
			h.authority.mu.Lock()
			defer h.authority.mu.Unlock()
			return types.UID(h.authority.uid())
		},
		Refused: func(pod types.UID, why string) { h.refused = append(h.refused, fmt.Sprint(pod, ": ", why)) },
		Renewed: func(pod types.UID) {
			h.mu.Lock()
			defer h.mu.Unlock()
			h.renewed[pod]++
		},
	})
	for i := range pods {
		pod := podNamed(fmt.Sprint(i))
		h.pods = append(h.pods, pod)
		h.first[pod.UID] = get(t, h.tokens, pod, source)
	}
	elapse(time.Second)
	return h
}

// replaced returns the number of pods that no longer have their first token.
func (h *fakeNode) replaced(t *testing.T, source *corev1.ServiceAccountTokenProjection) int {
	t.Helper()
	n := 0
	for _, pod := range h.pods {
		if get(t, h.tokens, pod, source) != h.first[pod.UID] {
			n++
		}
	}
	return n
}

// TestRefusedTokensAreReplaced tests each reason for which an authority ceases to accept tokens that have not expired.
func TestRefusedTokensAreReplaced(t *testing.T) {
	t.Parallel()
	const all = 500
	own, vault := projection("", 3600), projection("vault", 3600)
	for name, test := range map[string]struct {
		source *corev1.ServiceAccountTokenProjection
		change func(*authority)
		within time.Duration
		want   int
		why    string
	}{
		"the account is made again": {own, func(a *authority) { a.account = "b" }, 5 * time.Second, all, "its service account was deleted and created again"},
		// The first refusal comes within 4 seconds, and then each token is reviewed and replaced.
		"the key is retired":        {own, func(a *authority) { a.key = "key-2" }, 15 * time.Second, all, "the authority refuses it"},
		"the audience changes":      {own, func(a *authority) { a.audience = "https://other" }, 15 * time.Second, all, "the authority refuses it"},
		"the node is made again":    {own, func(a *authority) { a.node = "node-2" }, 15 * time.Second, all, "the authority refuses it"},
		"another audience changes":  {vault, func(a *authority) { a.audience = "https://other" }, time.Minute, 0, ""},
		"nothing changes":           {own, func(*authority) {}, 10 * time.Minute, 0, ""},
		"the authority is not sure": {own, func(a *authority) { a.account, a.key, a.reviewError = "a", "key-2", errors.New("service unavailable") }, 10 * time.Minute, 0, ""},
	} {
		t.Run(name, func(t *testing.T) {
			simulate(t, func(t *testing.T) {
				h := newFakeNode(t, all, test.source)
				asked, reviewed := h.authority.count(), h.authority.reviews()
				h.authority.set(test.change)
				h.authority.set(func(a *authority) { a.delay, a.most = 5*time.Millisecond, 0 })
				h.tokens.AccountChanged("shop", "dashboard-sa")
				elapse(test.within)
				if got := h.replaced(t, test.source); got != test.want {
					t.Errorf("%d tokens were replaced within %v, want %d", got, test.within, test.want)
				}
				if len(h.refused) != test.want {
					t.Errorf("%d refusals were reported, want %d: %.100q", len(h.refused), test.want, h.refused)
				}
				for _, reported := range h.refused {
					if _, why, _ := strings.Cut(reported, ": "); why != test.why {
						t.Fatalf("reported %q, want %q", reported, test.why)
					}
				}
				if requests := h.authority.count() - asked; requests != test.want || h.authority.most > inFlight {
					t.Errorf("%d requests, %d at once; want %d, %d at once", requests, h.authority.most, test.want, inFlight)
				}
				// One review in four seconds, independent of the number of pods, and one for each suspect token.
				if reviews, most := h.authority.reviews()-reviewed, test.want+int(test.within/reviewEvery)+1; reviews > most {
					t.Errorf("%d reviews, want at most %d", reviews, most)
				}
			})
		})
	}
}

// TestAnAccountIsMadeAgainAfterAWhile creates an account again long after it was deleted, when its tokens have been refused
// and requests for new ones are in their back-off.
func TestAnAccountIsMadeAgainAfterAWhile(t *testing.T) {
	simulate(t, func(t *testing.T) {
		source := projection("", 3600)
		h := newFakeNode(t, 3, source)
		h.authority.set(func(a *authority) { a.account, a.failure = "gone", errors.New("service account does not exist") })
		elapse(5 * time.Minute)
		if got := h.replaced(t, source); got != 0 {
			t.Fatalf("%d tokens were replaced while there was no account", got)
		}
		h.authority.set(func(a *authority) { a.account, a.failure = "b", nil })
		h.tokens.AccountChanged("shop", "dashboard-sa")
		elapse(5 * time.Second)
		if got := h.replaced(t, source); got != 3 {
			t.Errorf("%d tokens were replaced within 5 seconds, want 3", got)
		}
	})
}

// TestARevokedTokenIsReplaced revokes a single token. The routine reviews find it, and the other tokens do not become suspect.
func TestARevokedTokenIsReplaced(t *testing.T) {
	simulate(t, func(t *testing.T) {
		source := projection("", 3600)
		h := newFakeNode(t, 3, source)
		before := 0
		h.authority.set(func(a *authority) { a.revoked, before = map[string]bool{"2": true}, len(a.reviewed) })
		elapse(3 * reviewEvery)
		if got := h.replaced(t, source); got != 1 || h.renewed["uid-of-1"] != 1 {
			t.Errorf("%d tokens were replaced, %v; want the second", got, h.renewed)
		}
		if reviews := h.authority.reviews() - before; reviews > 4 {
			t.Errorf("%d reviews in %v", reviews, 3*reviewEvery)
		}
	})
}

// TestALateTokenOfTheFormerAccount has the answer to a request arrive after the account has been deleted and
// created again.
func TestALateTokenOfTheFormerAccount(t *testing.T) {
	simulate(t, func(t *testing.T) {
		source := projection("", 3600)
		h := newFakeNode(t, 1, source) // its token has just been reviewed
		h.authority.set(func(a *authority) { a.account, a.delay = "former", time.Second })
		late := h.tokens.config.Request
		h.tokens.config.Request = func(ctx context.Context, namespace, account string, r *authenticationv1.TokenRequest) (*authenticationv1.TokenRequest, error) {
			answer, err := late(ctx, namespace, account, r)
			h.authority.set(func(a *authority) { a.account, a.delay = "present", 0 })
			return answer, err
		}
		pod := podNamed("p")
		former := get(t, h.tokens, pod, source)
		h.tokens.AccountChanged("shop", "another")
		elapse(time.Second)
		if get(t, h.tokens, pod, source) == former {
			t.Error("the pod still has the token of the former account")
		}
	})
}

// TestAnAuthorityThatRefusesWhatItIssues has new tokens be refused as well, as for a pod that ends. Requests become rare.
func TestAnAuthorityThatRefusesWhatItIssues(t *testing.T) {
	simulate(t, func(t *testing.T) {
		h := newFakeNode(t, 1, projection("", 3600))
		h.authority.set(func(a *authority) { a.revoked = map[string]bool{} })
		for i := range 1000 {
			h.authority.revoked[fmt.Sprint(i)] = true
		}
		before := h.authority.count()
		elapse(time.Hour)
		if requests := h.authority.count() - before; requests < 3 || requests > 10 {
			t.Errorf("%d requests in an hour, want a few", requests)
		}
	})
}

// TestReviewsDuringAnOutage has reviews become rare during an outage, and resume soon after it.
func TestReviewsDuringAnOutage(t *testing.T) {
	simulate(t, func(t *testing.T) {
		source := projection("", 3*24*3600)
		h := newFakeNode(t, 100, source)
		h.authority.set(func(a *authority) { a.reviewError, a.reviewed = errors.New("connection refused"), nil })
		h.tokens.mu.Lock()
		for _, managed := range h.tokens.managed {
			managed.suspect = true
		}
		h.tokens.mu.Unlock()
		elapse(10 * time.Minute)
		if n := h.authority.reviews(); n < 40 || n > 100 {
			t.Errorf("%d reviews in 10 minutes, want one in about 10 seconds", n)
		}
		h.authority.set(func(a *authority) { a.reviewError, a.key = nil, "key-2" })
		elapse(lastReviewRetry + 10*time.Second)
		if got := h.replaced(t, source); got != 100 {
			t.Errorf("%d of 100 tokens were replaced after the outage", got)
		}
	})
}

// TestAdoptedTokensAreReviewed adopts tokens of an earlier agent. They are reviewed at once, because the authority may have
// been set up again together with the agent.
func TestAdoptedTokensAreReviewed(t *testing.T) {
	simulate(t, func(t *testing.T) {
		source := projection("", 3600)
		h, next := newFakeNode(t, 200, source), newFakeNode(t, 0, source)
		next.authority.set(func(a *authority) {
			a.asked, a.revoked = make([]time.Time, 1000), map[string]bool{}
			for i := range 201 {
				a.revoked[fmt.Sprint(i)] = true
			}
		})
		for _, pod := range h.pods {
			if !next.tokens.Adopt(pod, source, h.first[pod.UID]) {
				t.Fatal("the token was not adopted")
			}
		}
		elapse(5 * time.Second)
		next.pods, next.first = h.pods, h.first
		if got := next.replaced(t, source); got != 200 {
			t.Errorf("%d of 200 tokens were replaced", got)
		}
	})
}
