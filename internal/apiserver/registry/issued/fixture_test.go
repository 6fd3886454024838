package issued_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"k8s.io/apiserver/pkg/endpoints/request"
	clocktesting "k8s.io/utils/clock/testing"

	"lanyard.dev/internal/apiserver/registry"
	"lanyard.dev/internal/apiserver/registry/issued"
	"lanyard.dev/internal/ledger"
)

// fixture is a ledger in memory, whose history begins at revision 10.
type fixture struct {
	memory *ledger.Memory
	clock  *clocktesting.FakePassiveClock

	mu        sync.Mutex
	revision  uint64
	settled   int
	settleErr error
	revokeErr error
	revoked   [][]ledger.Revocation
	refused   map[string]error // what check returns, by ID
}

func newFixture() *fixture {
	clock := clocktesting.NewFakePassiveClock(issuedAt.Add(time.Minute))
	f := &fixture{memory: ledger.NewMemory(clock), clock: clock, revision: 10, refused: map[string]error{}}
	f.memory.Synced(10)
	return f
}

func (f *fixture) tokens() *issued.REST[ledger.TokenRecord] {
	description := registry.Description{Singular: "issuedtoken", Namespaced: true, TableConvertor: registry.TableOf(issued.TokenColumns, issued.TokenRow)}
	check := func(_ context.Context, t *ledger.TokenRecord) error { return f.check(t.ID) }
	return issued.NewTokens(description, issued.Config[ledger.TokenRecord]{
		Memory: f.memory, Settle: f.settle, Revoke: f.revoke, Check: check, BookmarkPeriod: time.Millisecond,
	})
}

func (f *fixture) certificates() *issued.REST[ledger.CertificateRecord] {
	description := registry.Description{Singular: "issuedcertificate", TableConvertor: registry.TableOf(issued.CertificateColumns, issued.CertificateRow)}
	check := func(_ context.Context, c *ledger.CertificateRecord) error { return f.check(c.ID) }
	return issued.NewCertificates(description, issued.Config[ledger.CertificateRecord]{Memory: f.memory, Settle: f.settle, Revoke: f.revoke, Check: check})
}

func (f *fixture) check(id string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.refused[id]
}

func (f *fixture) refuse(id string, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.refused[id] = err
}

func (f *fixture) settle(context.Context) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.settled++
	return f.settleErr
}

func (f *fixture) revoke(_ context.Context, revocations []ledger.Revocation) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.revokeErr != nil {
		return f.revokeErr
	}
	f.revoked = append(f.revoked, revocations)
	f.revision++
	f.memory.Apply(&ledger.Batch{Revocations: revocations}, f.revision)
	return nil
}

// apply applies a batch at the next revision.
func (f *fixture) apply(b ledger.Batch) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.revision++
	f.memory.Apply(&b, f.revision)
}

func (f *fixture) issue(tokens ...ledger.Token) { f.apply(ledger.Batch{Tokens: tokens}) }

var issuedAt = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// sample returns a token of an account in a namespace.
func sample(id, namespace, account string) ledger.Token {
	return ledger.Token{
		ID: id, Namespace: namespace, Account: account, AccountUID: "uid-of-" + account, Audiences: []string{"api", "vault"},
		Issued: issuedAt, Expires: issuedAt.Add(time.Hour), Key: "key-1",
		Minter: ledger.Minter{User: "alice", UID: "7", Credential: "X509SHA256=ab", Address: "192.0.2.7", UserAgent: "kubectl/v1.37"},
	}
}

// bound returns a token that is bound to a pod.
func bound(t ledger.Token, pod, node string) ledger.Token {
	t.Bound = ledger.Object{Kind: "Pod", Name: pod, UID: "uid-of-" + pod}
	t.Node = ledger.Object{Kind: "Node", Name: node, UID: "uid-of-" + node}
	return t
}

// five has the tokens a and b at revision 11, c at 12, and d and e at 13.
func five() *fixture {
	f := newFixture()
	child := sample("e", "prod", "robot")
	child.Minter.User, child.Minter.Credential, child.Audiences, child.Key = "system:serviceaccount:prod:web", "JTI=a", []string{"other"}, "key-2"
	onNode := sample("d", "test", "web")
	onNode.Bound = ledger.Object{Kind: "Node", Name: "n2", UID: "uid-of-n2"}
	f.issue(bound(sample("a", "prod", "web"), "web-1", "n1"), sample("b", "prod", "robot"))
	f.issue(sample("c", "test", "web"))
	f.issue(onNode, child)
	return f
}

var errBroken = errors.New("etcd is away")

// in returns the context of a request for a namespace, or for all if namespace is "".
func in(t *testing.T, namespace string) context.Context {
	t.Helper()
	return request.WithNamespace(t.Context(), namespace)
}
