package access_test

import (
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	rbacv1 "k8s.io/api/rbac/v1"

	"lanyard.dev/internal/access"
	"lanyard.dev/internal/rbac"
	"lanyard.dev/internal/rbac/rbactest"
)

// policyOf returns a policy from YAML.
func policyOf(t testing.TB, manifests string) *access.Policy {
	t.Helper()
	m := access.NewManifests("default")
	if err := m.Read("policy", strings.NewReader(manifests)); err != nil {
		t.Fatal(err)
	}
	index, err := m.Index()
	if err != nil {
		t.Fatal(err)
	}
	return access.New(index)
}

func subject(t testing.TB, text string, groups ...string) access.Subject {
	t.Helper()
	s, err := access.ParseSubject(text, groups...)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func targetOf(req rbac.Request) access.Target {
	return access.Target{
		APIGroup: req.APIGroup, Resource: req.Resource, Subresource: req.Subresource,
		Name: req.Name, Namespace: req.Namespace, Path: req.Path,
	}
}

// means compares a binding's subject with an identity, without the code under test.
func means(s rbacv1.Subject, user string, groups []string) bool {
	switch s.Kind {
	case "User":
		return s.Name == user
	case "Group":
		return slices.Contains(groups, s.Name)
	}
	return s.Kind == "ServiceAccount" && user == "system:serviceaccount:"+s.Namespace+":"+s.Name
}

// identityOf returns the user or group of a binding's subject.
func identityOf(s rbacv1.Subject) (user string, groups []string) {
	switch s.Kind {
	case "Group":
		return "nobody at all", []string{s.Name}
	case "ServiceAccount":
		return "system:serviceaccount:" + s.Namespace + ":" + s.Name, nil
	}
	return s.Name, nil
}

// TestAgreesWithTheIndex compares the answers of Explain, WhoCan and List with decisions, on random policies.
func TestAgreesWithTheIndex(t *testing.T) {
	t.Parallel()
	allowed, total := 0, 0
	for seed := range uint64(30) {
		r := rbactest.Random{Rand: rand.New(rand.NewPCG(seed, 11))}
		p, x := rbactest.NewPolicy(), rbac.NewIndex()
		for step := range 40 + r.IntN(160) {
			r.Change(p, step)(x)
		}
		for range 60 {
			req := r.Request()
			if !req.ResourceRequest && req.Path == "" {
				continue // a question must have a path
			}
			total++
			if checkAgreement(t, access.New(x), x, req); t.Failed() {
				t.Fatalf("seed %d, request %+v", seed, req)
			}
			if x.Authorize(req).Allowed {
				allowed++
			}
		}
	}
	if allowed < total/20 || allowed > total*19/20 {
		t.Errorf("%d of %d random requests allowed: the generator no longer tests both ways", allowed, total)
	}
}

func checkAgreement(t *testing.T, policy *access.Policy, x *rbac.Index, req rbac.Request) {
	t.Helper()
	want := x.Authorize(req).Allowed
	s := access.Subject{Text: "someone", User: req.User, Groups: req.Groups}
	explained := policy.Explain(access.Question{Subject: s, Verb: req.Verb, Target: targetOf(req)})
	if explained.Allowed != want || len(explained.Grants) > 0 != want || want && len(explained.Misses) > 0 {
		t.Errorf("explain: allowed=%v by %d grants with %d misses; the index returns %v",
			explained.Allowed, len(explained.Grants), len(explained.Misses), want)
	}
	holders := policy.WhoCan(req.Verb, targetOf(req))
	held := slices.ContainsFunc(holders.Grants, func(v access.Via) bool { return means(v.Subject, req.User, req.Groups) })
	if held != want {
		t.Errorf("who-can has the user: %v; the index returns %v", held, want)
	}
	for _, v := range holders.Grants {
		alone := req
		alone.User, alone.Groups = identityOf(v.Subject)
		if !x.Authorize(alone).Allowed {
			t.Errorf("who-can has %+v by %s, whom the index denies", v.Subject, v.Binding)
		}
	}
	if listed := listAllows(policy.List(s, ""), req); listed != want {
		t.Errorf("list has it: %v; the index returns %v", listed, want)
	}
}

func listAllows(list access.Permissions, req rbac.Request) bool {
	return slices.ContainsFunc(list.Permissions, func(p access.Permission) bool {
		rule := rbacv1.PolicyRule{
			Verbs: p.Verbs, APIGroups: p.APIGroups, Resources: p.Resources, ResourceNames: p.ResourceNames, NonResourceURLs: p.NonResourceURLs,
		}
		return (p.Namespace == "" || req.ResourceRequest && p.Namespace == req.Namespace) && rbac.RuleAllows(&rule, req)
	})
}
