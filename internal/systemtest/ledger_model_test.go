// The naive model of the ledger, and the worker that compares the answers of replicas with it.

package systemtest

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/types"
)

// stalest is how long after a revocation or deletion another replica may accept a token at most.
const stalest = 10 * time.Second

// ending is the acknowledged end of a token or of an object.
type ending struct {
	at time.Time // when the acknowledgement arrived
	by *replica  // which has made the change in this process, or nil if that is not known
}

// modelObject is an account, pod or secret, from its creation to its deletion.
type modelObject struct {
	name  string
	uid   types.UID
	ended *ending
}

// modelToken is an issued token.
type modelToken struct {
	id, text       string
	account, bound *modelObject // bound is nil if it is bound to its account only
	parent         *modelToken  // by which it was requested; nil if by the administrator
	revoked        *ending
}

// slot is a place for an object, which is created and deleted in turn.
type slot struct {
	kind, resource, base string
	account              *slot  // of a pod
	accountName          string // of the current pod
	generation           int
	object               *modelObject // nil while there is none
}

// modelWorker sends random requests to random replicas, one after the other. Nobody else changes its namespace, so it knows
// what each answer must be.
type modelWorker struct {
	t         *testing.T
	site      *replicaSite
	random    *rand.Rand
	namespace string
	forger    forger

	slots  []*slot
	tokens []*modelToken
	// lost counts the requests for tokens without an answer: each may have left a record.
	lost int
	// settled is, for each replica, when the last read began that must contain everything written before.
	settled [3]time.Time

	answered, unavailable, late int
	latest                      time.Duration // the longest time after which another replica accepted a token that had ended
}

func newModelWorker(t *testing.T, site *replicaSite, namespace string, random *rand.Rand, f forger) *modelWorker {
	w := &modelWorker{t: t, site: site, random: random, namespace: namespace, forger: f}
	for i := range 2 {
		account := &slot{kind: "ServiceAccount", resource: "serviceaccounts", base: fmt.Sprint("account", i)}
		w.slots = append(w.slots, account,
			&slot{kind: "Pod", resource: "pods", base: fmt.Sprint("pod", i), account: account},
			&slot{kind: "Secret", resource: "secrets", base: fmt.Sprint("secret", i)})
	}
	return w
}

// run takes random steps until ctx ends.
func (w *modelWorker) run(ctx context.Context) {
	for ctx.Err() == nil && !w.t.Failed() {
		w.createMissing()
		switch n := w.random.IntN(100); {
		case n < 30:
			w.issue()
		case n < 65:
			w.use(w.recentToken(), w.anyReplica())
		case n < 75:
			w.readRecord(w.recentToken())
		case n < 80:
			w.compareList(w.anySelection())
		case n < 88:
			w.revoke(w.recentToken())
		case n < 91:
			w.revokeSelected(w.anySelection())
		case n < 97:
			w.deleteObject(w.slots[w.random.IntN(len(w.slots))])
		default:
			w.forge()
		}
	}
}

func (w *modelWorker) anyReplica() *replica {
	return w.site.replicas[w.random.IntN(len(w.site.replicas))]
}

// recentToken returns a token, usually one of the last, or nil.
func (w *modelWorker) recentToken() *modelToken {
	if len(w.tokens) == 0 {
		return nil
	}
	from := 0
	if w.random.IntN(4) > 0 {
		from = max(0, len(w.tokens)-10)
	}
	return w.tokens[from+w.random.IntN(len(w.tokens)-from)]
}

// isUnavailable reports whether a request was not answered, or with 503 or 429. It may have been carried out. As in Kubernetes,
// the answer to a write of an object is 500 if etcd loses its leader or the connection during the write.
func isUnavailable(path string, got answer, err error) bool {
	isObject := strings.HasPrefix(path, "/api/v1/") && !strings.HasSuffix(path, "/token")
	if isObject && got.code == http.StatusInternalServerError {
		return bytes.Contains(got.body, []byte("rpc error: code = Unavailable")) || bytes.Contains(got.body, []byte("etcdserver: "))
	}
	return err != nil || got.code == http.StatusServiceUnavailable || got.code == http.StatusTooManyRequests
}

// send sends a request to a replica. A request without a text of a token is the administrator's.
func (w *modelWorker) send(r *replica, text, method, path string, body any) (got answer, ok bool) {
	ctx, cancel := context.WithTimeout(w.t.Context(), 2*stalest)
	defer cancel()
	var err error
	if text == "" {
		got, err = r.admin.try(ctx, method, path, encode(w.t, body))
	} else {
		got, err = r.anyone.try(ctx, method, path, encode(w.t, body), "Authorization", "Bearer "+text)
	}
	if isUnavailable(path, got, err) {
		w.unavailable++
		time.Sleep(5 * time.Millisecond) // a replica that is down answers at once
		return got, false
	}
	w.answered++
	return got, true
}

// settledAnswer is the answer of a replica to a request that was repeated until there was one.
type settledAnswer struct {
	answer
	by       *replica
	began    time.Time // the attempt that was answered
	attempts int
}

// ask sends a request of the administrator to random replicas until one answers.
func (w *modelWorker) ask(method, path string, body any) settledAnswer {
	a := settledAnswer{}
	for begin := time.Now(); time.Since(begin) < waitLimit; {
		a.by, a.began = w.anyReplica(), time.Now()
		a.attempts++
		got, ok := w.send(a.by, "", method, path, body)
		if a.answer = got; ok {
			return a
		}
	}
	w.t.Errorf("%s %s: no replica has answered within %v; the last answer was %s", method, path, waitLimit, a.answer)
	return a
}

func (w *modelWorker) fail(what string, r *replica, got any) {
	w.t.Helper()
	w.t.Errorf("%s at replica %d in %s: %v", what, r.number, w.namespace, got)
}

// expected returns which answers to a use are right. Both are, if another replica may not know of an ending yet.
func (w *modelWorker) expected(k *modelToken, r *replica, began, started time.Time) (accept, refuse bool) {
	accept = true
	known := func(e *ending) bool { return e.by == r || started.After(e.at) || began.Sub(e.at) > stalest }
	for _, object := range []*modelObject{k.account, k.bound} {
		if object != nil && object.ended != nil {
			refuse = true
			accept = accept && !known(object.ended)
		}
	}
	if k.revoked != nil {
		refuse = true
		accept = accept && !known(k.revoked) && !w.settled[r.number].After(k.revoked.at)
	}
	return accept, refuse
}

// judge compares an acceptance or refusal with the model.
func (w *modelWorker) judge(k *modelToken, r *replica, began, started time.Time, accepted bool) {
	w.t.Helper()
	accept, refuse := w.expected(k, r, began, started)
	if accepted && !accept || !accepted && !refuse {
		w.fail("use of token "+k.id, r, fmt.Sprintf("accepted %v, but the model has %s", accepted, k))
	}
	if accepted && refuse {
		w.late++
		w.latest = max(w.latest, began.Sub(k.firstEnding()))
	}
}

// firstEnding returns when the token ended.
func (k *modelToken) firstEnding() time.Time {
	var first time.Time
	for _, e := range k.endings() {
		if first.IsZero() || e.at.Before(first) {
			first = e.at
		}
	}
	return first
}

func (k *modelToken) endings() (all []*ending) {
	for _, object := range []*modelObject{k.account, k.bound} {
		if object != nil && object.ended != nil {
			all = append(all, object.ended)
		}
	}
	if k.revoked != nil {
		all = append(all, k.revoked)
	}
	return all
}

func (k *modelToken) String() string {
	text := "its account " + k.account.name
	if k.bound != nil {
		text += ", bound to " + k.bound.name
	}
	for _, e := range k.endings() {
		text += fmt.Sprintf(", an end %v ago", time.Since(e.at))
		if e.by != nil {
			text += fmt.Sprint(" by replica ", e.by.number)
		}
	}
	if k.revoked != nil {
		text += ", revoked"
	}
	return text
}
