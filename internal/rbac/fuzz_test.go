package rbac_test

import (
	"math/rand/v2"
	"sync"
	"testing"

	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/component-helpers/auth/rbac/validation"

	"lanyard.dev/internal/rbac"
	"lanyard.dev/internal/rbac/rbactest"
)

// compare checks that index and policy give the same decisions on n random requests.
func compare(t *testing.T, r rbactest.Random, p *rbactest.Policy, x *rbac.Index, n int) (allowed int) {
	t.Helper()
	for range n {
		req := r.Request()
		d := x.Authorize(req)
		if want := p.Allows(req); d.Allowed != want {
			t.Fatalf("request %+v: index returns %v (%s), naive evaluator returns %v", req, d.Allowed, d.Reason(), want)
		}
		if d.Allowed {
			allowed++
			checkGrant(t, p, d, req)
		}
	}
	return allowed
}

// checkGrant checks that the binding that a decision names is sufficient to allow the request.
func checkGrant(t *testing.T, p *rbactest.Policy, d rbac.Decision, req rbac.Request) {
	t.Helper()
	b, _ := d.Binding()
	one := rbactest.Policy{Roles: p.Roles, ClusterRoles: p.ClusterRoles}
	switch b.Kind {
	case rbac.ClusterRoleBinding:
		one.ClusterRoleBindings = map[string]*rbacv1.ClusterRoleBinding{"": p.ClusterRoleBindings[b.Name]}
	default:
		one.RoleBindings = map[string]*rbacv1.RoleBinding{"": p.RoleBindings[b.Namespace+"/"+b.Name]}
	}
	if !one.Allows(req) {
		t.Fatalf("request %+v: %s does not allow it", req, d.Reason())
	}
}

func compareCovers(t *testing.T, r rbactest.Random, p *rbactest.Policy, x *rbac.Index) {
	t.Helper()
	req, rules := r.Request(), r.Rules()
	want, _ := validation.Covers(p.Rules(req.User, req.Groups, req.Namespace), rules)
	got, missing := x.Covers(req.User, req.Groups, req.Namespace, rules)
	if got != want && !hasOpenSlash(rules) {
		t.Fatalf("user %q %q in %q, rules %+v: Covers returns %v (missing %+v), Kubernetes' comparator returns %v",
			req.User, req.Groups, req.Namespace, rules, got, missing, want)
	}
}

// hasOpenSlash reports whether a rule has a resource such as "pods/". In Kubernetes "*/" covers it, although neither matches
// any request.
func hasOpenSlash(rules []rbacv1.PolicyRule) bool {
	for _, r := range rules {
		for _, s := range r.Resources {
			if s[len(s)-1] == '/' {
				return true
			}
		}
	}
	return false
}

func FuzzIndexAgainstNaive(f *testing.F) {
	for seed := range uint64(40) {
		f.Add(seed, uint16(20+seed*15))
	}
	f.Fuzz(func(t *testing.T, seed uint64, steps uint16) {
		r := rbactest.Random{Rand: rand.New(rand.NewPCG(seed, 1))}
		p, x := rbactest.NewPolicy(), rbac.NewIndex()
		for step := range int(steps % 1000) {
			r.Change(p, step)(x)
			compare(t, r, p, x, 4)
			compareCovers(t, r, p, x)
		}
		compare(t, r, p, x, 50)
	})
}

func TestRandomPoliciesAllowAndDeny(t *testing.T) {
	t.Parallel()
	r := rbactest.Random{Rand: rand.New(rand.NewPCG(7, 7))}
	p, x := rbactest.NewPolicy(), rbac.NewIndex()
	allowed := 0
	const steps, requests = 500, 20
	for step := range steps {
		r.Change(p, step)(x)
		allowed += compare(t, r, p, x, requests)
	}
	if n := steps * requests; allowed < n/20 || allowed > n*19/20 {
		t.Errorf("%d of %d random requests allowed: the generator no longer tests both ways", allowed, n)
	}
	t.Logf("%d of %d allowed", allowed, steps*requests)
}

// TestConcurrentWritesEndEqualToNaive lets four writers make 10,000 changes of a few objects concurrently, each change twice,
// as by a write and the watch event that follows.
func TestConcurrentWritesEndEqualToNaive(t *testing.T) {
	t.Parallel()
	const workers, writes = 4, 10_000
	r := rbactest.Random{Rand: rand.New(rand.NewPCG(3, 4))}
	p, x := rbactest.NewPolicy(), rbac.NewIndex()
	changes := make([]func(*rbac.Index), writes)
	for i := range changes {
		changes[i] = r.Change(p, i)
	}
	var writing, reading sync.WaitGroup
	done := make(chan struct{})
	for w := range workers {
		reading.Go(func() { readUntil(x, uint64(w), done) })
		writing.Go(func() {
			for i := w; i < writes+workers; i += workers {
				changes[min(i, writes-1)](x)
				changes[max(0, i-workers/2-w)%writes](x)
			}
		})
	}
	writing.Wait()
	close(done)
	reading.Wait()
	compare(t, r, p, x, 5000)
}

func readUntil(x *rbac.Index, seed uint64, done <-chan struct{}) {
	r := rbactest.Random{Rand: rand.New(rand.NewPCG(seed, 5))}
	for i := 0; ; i++ {
		select {
		case <-done:
			return
		default:
		}
		req := r.Request()
		d := x.Authorize(req)
		_ = d.Reason()
		if i%64 == 0 {
			x.RulesFor(req.User, req.Groups, req.Namespace)
			x.GrantsFor(req.User, req.Groups, req.Namespace)
		}
	}
}
