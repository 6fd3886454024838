// The random steps of a worker: it uses, issues, reads and revokes tokens, and creates and deletes their objects.

package systemtest

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	identity "lanyard.dev/apis/identity/v1alpha1"
	"lanyard.dev/internal/token"
)

// use uses a token as a bearer or in a review.
func (w *modelWorker) use(k *modelToken, r *replica) (answered, accepted bool) {
	if k == nil {
		return false, false
	}
	began, started := time.Now(), r.startedAt()
	var got answer
	if w.random.IntN(3) > 0 {
		got, answered = w.send(r, k.text, http.MethodPost, whoAmIPath, `{}`)
		accepted = got.code == http.StatusCreated
		if answered && !accepted && got.code != http.StatusUnauthorized {
			w.fail("use of token "+k.id, r, got)
		}
	} else {
		review := authenticationv1.TokenReview{Spec: authenticationv1.TokenReviewSpec{Token: k.text}}
		got, answered = w.send(r, "", http.MethodPost, reviewPath, &review)
		if answered && (got.code != http.StatusCreated || json.Unmarshal(got.body, &review) != nil) {
			w.fail("review of token "+k.id, r, got)
		}
		accepted = review.Status.Authenticated
	}
	if answered {
		w.judge(k, r, began, started, accepted)
	}
	return answered, accepted
}

// forge uses a token that was signed with the real key and was not issued.
func (w *modelWorker) forge() {
	account := w.slots[0].object
	if account == nil {
		return
	}
	r, f := w.anyReplica(), w.forger
	f.request.Namespace, f.request.ServiceAccount = w.namespace, token.Ref{Name: account.name, UID: string(account.uid)}
	if got, ok := w.send(r, f.issued(0), http.MethodPost, whoAmIPath, `{}`); ok && got.code != http.StatusUnauthorized {
		w.fail("use of a token without a record", r, got)
	}
}

// issue requests a token, by the administrator or by a token.
func (w *modelWorker) issue() {
	k, name, spec, ok := w.anyRequest()
	if !ok {
		return
	}
	text := ""
	if k.parent != nil {
		text = k.parent.text
	}
	r := w.anyReplica()
	began, started := time.Now(), r.startedAt()
	got, ok := w.send(r, text, http.MethodPost, "/api/v1/namespaces/"+w.namespace+"/serviceaccounts/"+name+"/token", &authenticationv1.TokenRequest{Spec: spec})
	if !ok {
		w.lost++
		return
	}
	if k.parent != nil {
		w.judge(k.parent, r, began, started, got.code != http.StatusUnauthorized)
	}
	exists := k.account != nil && (spec.BoundObjectRef == nil || k.bound != nil)
	switch {
	case got.code == http.StatusUnauthorized && k.parent != nil:
	case got.code == http.StatusCreated && exists:
		var request authenticationv1.TokenRequest
		got.decode(w.t, &request)
		k.text = request.Status.Token
		_, k.id = token.Names(k.text)
		w.tokens = append(w.tokens, k)
		if w.random.IntN(2) == 0 {
			w.useEverywhere(k)
		}
	case got.code != http.StatusNotFound || exists:
		w.fail(fmt.Sprintf("token request for %s, whose objects exist: %v", name, exists), r, got)
	}
}

// anyRequest returns a request for a token of an account with a name. ok is false if the account cannot have such a token.
func (w *modelWorker) anyRequest() (k *modelToken, account string, spec authenticationv1.TokenRequestSpec, ok bool) {
	of, bound := w.slots[0], w.slots[w.random.IntN(len(w.slots))]
	k = &modelToken{}
	switch bound.kind {
	case "ServiceAccount":
		of, bound = bound, nil
	case "Pod":
		if of = bound.account; bound.object != nil && bound.accountName != of.name() {
			return nil, "", spec, false
		}
	}
	k.account = of.object
	if bound != nil {
		k.bound = bound.object
		spec.BoundObjectRef = &authenticationv1.BoundObjectReference{APIVersion: "v1", Kind: bound.kind, Name: bound.name()}
	}
	if w.random.IntN(3) == 0 {
		k.parent = w.recentToken()
	}
	return k, of.name(), spec, true
}

func (w *modelWorker) recordPath(k *modelToken) string {
	return issuedTokensPath(w.namespace) + "/" + k.id
}

// readRecord reads the record of a token, which is there until the token is revoked.
func (w *modelWorker) readRecord(k *modelToken) {
	if k == nil {
		return
	}
	got := w.ask(http.MethodGet, w.recordPath(k), nil)
	if want := map[bool]int{true: http.StatusNotFound, false: http.StatusOK}[k.revoked != nil]; got.code != want {
		w.fail("record of token "+k.id, got.by, fmt.Sprintf("%s, want %d: the model has %s", got, want, k))
	}
	w.settle(got)
}

// settle notes that a replica knows everything that was written before a request.
func (w *modelWorker) settle(a settledAnswer) { w.settled[a.by.number] = a.began }

func (w *modelWorker) revoke(k *modelToken) {
	if k == nil {
		return
	}
	got := w.ask(http.MethodDelete, w.recordPath(k), nil)
	switch {
	case got.code == http.StatusOK && k.revoked == nil, got.code == http.StatusNotFound && k.revoked == nil && got.attempts > 1:
		k.revoked = &ending{time.Now(), got.by}
	case got.code != http.StatusNotFound || k.revoked == nil:
		w.fail("revocation of token "+k.id, got.by, fmt.Sprintf("%s: the model has %s", got, k))
	}
	w.settle(got)
	w.useEverywhere(k)
}

// selection is a selector of issued tokens, and what it selects.
type selection struct {
	query   string
	matches func(*modelToken) bool
}

func (w *modelWorker) anySelection() selection {
	s := w.slots[w.random.IntN(len(w.slots))]
	name := s.name()
	field := func(name, value string) string { return "fieldSelector=" + url.QueryEscape(name+"="+value) }
	switch k := w.recentToken(); {
	case k != nil && w.random.IntN(3) == 0:
		return selection{field("spec.mintedBy.credentialID", k.id), func(child *modelToken) bool { return child.parent == k }}
	case s.kind == "ServiceAccount":
		return selection{"labelSelector=" + url.QueryEscape(identity.LabelServiceAccount+"="+name), func(k *modelToken) bool { return k.account.name == name }}
	default:
		return selection{field("spec.boundObject.name", name), func(k *modelToken) bool { return k.bound != nil && k.bound.name == name }}
	}
}

// compareNames compares the selected tokens with the IDs that a replica has returned. There may be unknown IDs, of tokens
// that were issued without an answer.
func (w *modelWorker) compareNames(what string, s selection, by *replica, ids map[string]bool) {
	w.t.Helper()
	unknown := len(ids)
	for _, k := range w.tokens {
		want := k.revoked == nil && s.matches(k)
		if ids[k.id] != want {
			w.fail(what+" of "+s.query, by, fmt.Sprintf("token %s is selected: %v, want %v: the model has %s", k.id, ids[k.id], want, k))
		}
		if ids[k.id] {
			unknown--
		}
	}
	if unknown > w.lost {
		w.fail(what+" of "+s.query, by, fmt.Sprintf("%d unknown tokens, but only %d requests had no answer", unknown, w.lost))
	}
}

// compareList lists in pages, each from another replica.
func (w *modelWorker) compareList(s selection) {
	ids, next := map[string]bool{}, ""
	for {
		got := w.ask(http.MethodGet, issuedTokensPath(w.namespace)+"?limit=5&"+s.query+"&continue="+url.QueryEscape(next), nil)
		if got.code != http.StatusOK {
			w.fail("list of "+s.query, got.by, got)
			return
		}
		w.settle(got)
		var page identity.IssuedTokenList
		got.decode(w.t, &page)
		for i := range page.Items {
			ids[page.Items[i].Name] = true
		}
		if next = page.Continue; next == "" {
			w.compareNames("list", s, got.by, ids)
			return
		}
	}
}

// revokeSelected revokes the selected tokens in one request, if they are few.
func (w *modelWorker) revokeSelected(s selection) {
	live := slices.DeleteFunc(slices.Clone(w.tokens), func(k *modelToken) bool { return k.revoked != nil || !s.matches(k) })
	if len(live) > 10 && w.random.IntN(10) > 0 {
		return
	}
	got := w.ask(http.MethodDelete, issuedTokensPath(w.namespace)+"?"+s.query, nil)
	if got.code != http.StatusOK {
		w.fail("revocation of "+s.query, got.by, got)
		return
	}
	if got.attempts == 1 {
		var deleted identity.IssuedTokenList
		got.decode(w.t, &deleted)
		ids := map[string]bool{}
		for i := range deleted.Items {
			ids[deleted.Items[i].Name] = true
		}
		w.compareNames("revocation", s, got.by, ids)
	}
	for _, k := range live {
		k.revoked = &ending{time.Now(), got.by}
	}
	w.settle(got)
	if len(live) > 0 {
		w.useEverywhere(live[0])
	}
}

func (s *slot) name() string { return fmt.Sprintf("%s-%d", s.base, s.generation) }

// createMissing sometimes creates an object in an empty slot. It usually has the name of the one before.
func (w *modelWorker) createMissing() {
	for _, s := range w.slots {
		if s.object == nil && w.random.IntN(4) == 0 {
			w.createObject(s, w.anyReplica())
		}
	}
}

func (w *modelWorker) createObject(s *slot, r *replica) {
	path := "/api/v1/namespaces/" + w.namespace + "/" + s.resource
	var object any
	meta := metav1.ObjectMeta{Name: s.name()}
	switch s.kind {
	case "ServiceAccount":
		object = &corev1.ServiceAccount{ObjectMeta: meta}
	case "Secret":
		object = &corev1.Secret{ObjectMeta: meta}
	default:
		if s.account.object == nil {
			return
		}
		pod := podOn("")
		s.accountName = s.account.object.name
		pod.ObjectMeta, pod.Spec.ServiceAccountName = meta, s.accountName
		object = pod
	}
	got, ok := w.send(r, "", http.MethodPost, path, object)
	if !ok {
		s.generation++ // the object may exist or not, so its name is not used again
		return
	}
	if got.code != http.StatusCreated {
		w.fail("creation of "+s.name(), r, got)
		return
	}
	var made metav1.PartialObjectMetadata
	got.decode(w.t, &made)
	s.object = &modelObject{name: s.name(), uid: made.UID}
}

func (w *modelWorker) deleteObject(s *slot) {
	if s.object == nil {
		return
	}
	zero := int64(0)
	options := metav1.DeleteOptions{GracePeriodSeconds: &zero, Preconditions: &metav1.Preconditions{UID: &s.object.uid}}
	got := w.ask(http.MethodDelete, strings.Join([]string{"/api/v1/namespaces", w.namespace, s.resource, s.object.name}, "/"), &options)
	switch {
	case got.code == http.StatusOK:
		s.object.ended = &ending{time.Now(), got.by}
	case got.code == http.StatusNotFound && got.attempts > 1:
		s.object.ended = &ending{time.Now(), nil}
	default:
		w.fail("deletion of "+s.object.name, got.by, got)
	}
	for _, k := range w.tokens {
		if k.revoked == nil && (k.account == s.object || k.bound == s.object) && w.random.IntN(3) == 0 {
			w.useEverywhere(k)
		}
	}
	s.object = nil
}

// useEverywhere uses a token at each replica, while the others may not know of its beginning or end yet.
func (w *modelWorker) useEverywhere(k *modelToken) {
	for _, i := range w.random.Perm(len(w.site.replicas)) {
		w.use(k, w.site.replicas[i])
	}
}

// compareAll compares each token and record with the model, when all replicas are ready. It waits for replicas that do not know
// of an ending yet.
func (w *modelWorker) compareAll() {
	w.compareList(selection{"", func(*modelToken) bool { return true }})
	for _, k := range w.tokens {
		w.readRecord(k)
		r := w.anyReplica()
		for begin := time.Now(); !w.t.Failed(); {
			answered, accepted := w.use(k, r)
			if answered && accepted == (len(k.endings()) == 0) {
				break
			}
			if time.Since(begin) > waitLimit {
				w.fail("use of token "+k.id, r, fmt.Sprintf("not judged right within %v: the model has %s", waitLimit, k))
			}
		}
	}
}
