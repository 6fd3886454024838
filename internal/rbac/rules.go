package rbac

import (
	"iter"
	"maps"
	"slices"

	rbacv1 "k8s.io/api/rbac/v1"
)

// Rules are what a user may do in a namespace.
type Rules struct {
	Resource    []rbacv1.PolicyRule
	NonResource []rbacv1.PolicyRule
}

// RulesFor returns the rules that hold for a user in a namespace, those that
// hold cluster-wide included; with an empty namespace only these. Each role
// counts once, however many bindings grant it. NonResource holds what
// ClusterRoleBindings grant, as only they do. The rules belong to the index.
func (x *Index) RulesFor(user string, groups []string, namespace string) Rules {
	var out Rules
	seen := map[*slot]bool{}
	req := Request{User: user, Groups: groups, Namespace: namespace}
	x.eachState(&req, func(ns string, st *scopeState) {
		st.each(func(g *grant) bool {
			if r := g.slot.role.Load(); r != nil && !seen[g.slot] {
				// A role bound in both scopes is met in the cluster's
				// first, where it gives more.
				seen[g.slot] = true
				out.add(r.source, ns == "")
			}
			return true
		})
	})
	return out
}

func (out *Rules) add(rules []rbacv1.PolicyRule, clusterWide bool) {
	for _, r := range rules {
		if len(r.Resources) > 0 {
			out.Resource = append(out.Resource, rbacv1.PolicyRule{
				Verbs: r.Verbs, APIGroups: r.APIGroups, Resources: r.Resources, ResourceNames: r.ResourceNames,
			})
		}
		if len(r.NonResourceURLs) > 0 && clusterWide {
			out.NonResource = append(out.NonResource, rbacv1.PolicyRule{
				Verbs: r.Verbs, NonResourceURLs: r.NonResourceURLs,
			})
		}
	}
}

// Grant is one binding's effect: the subject gets the role's rules in the
// binding's namespace or, from a ClusterRoleBinding, everywhere.
type Grant struct {
	Binding Ref
	Role    Ref
	// Subject is as the binding writes it; Account namespaces are filled in.
	Subject rbacv1.Subject
	// Rules are nil, and Dangling is set, while the role does not exist.
	Rules    []rbacv1.PolicyRule
	Dangling bool
}

// Grants returns every grant, in no order: bindings as they were when the
// iteration started, each with its role as it is when yielded. Subjects that
// can match nobody are left out.
func (x *Index) Grants() iter.Seq[Grant] {
	return func(yield func(Grant) bool) {
		for _, b := range x.snapshot() {
			if b.role == nil {
				continue
			}
			for i := range b.subjects {
				if _, ok := b.scopeKey(i); ok && !yield(b.grantTo(i)) {
					return
				}
			}
		}
	}
}

// Roles returns every role with its rules, in no order: those that existed when the iteration started. The rules belong
// to the index.
func (x *Index) Roles() iter.Seq2[Ref, []rbacv1.PolicyRule] {
	return func(yield func(Ref, []rbacv1.PolicyRule) bool) {
		for _, s := range x.roleSlots() {
			if r := s.role.Load(); r != nil && !yield(s.ref, r.source) {
				return
			}
		}
	}
}

func (x *Index) roleSlots() []*slot {
	x.mu.Lock()
	defer x.mu.Unlock()
	return slices.Collect(maps.Values(x.slots))
}

func (x *Index) snapshot() []*binding {
	x.mu.Lock()
	defer x.mu.Unlock()
	all := make([]*binding, 0, len(x.bindings))
	for _, b := range x.bindings {
		all = append(all, b)
	}
	return all
}

// GrantsFor returns each grant that concerns a user in a namespace, in the
// order Authorize considers them.
func (x *Index) GrantsFor(user string, groups []string, namespace string) []Grant {
	var out []Grant
	req := Request{User: user, Groups: groups, Namespace: namespace}
	x.mu.Lock()
	defer x.mu.Unlock()
	x.eachState(&req, func(_ string, st *scopeState) {
		st.each(func(g *grant) bool {
			for _, e := range g.entries {
				out = append(out, e.binding.grantTo(e.index))
			}
			return true
		})
	})
	return out
}

func (b *binding) grantTo(i int) Grant {
	g := Grant{Binding: b.ref, Role: b.roleRef, Subject: b.subjects[i]}
	if g.Subject.Kind == rbacv1.ServiceAccountKind {
		g.Subject.Namespace = accountNamespace(g.Subject, b.ref.Namespace)
	}
	if r := b.role.role.Load(); r != nil {
		g.Rules = r.source
	} else {
		g.Dangling = true
	}
	return g
}

const (
	// maxPieces bounds the combinations of verb, group, resource and name
	// that Covers tests in one call. A rule that has more left is taken as
	// not covered: some 20 KiB of rule can spell billions.
	maxPieces = 1 << 20
	// maxUncovered bounds what Covers reports.
	maxUncovered = 256
)

// Covers reports whether a user already holds, in a namespace or cluster-wide
// where it is empty, everything the rules grant. If not, it returns what is
// missing, each rule with one verb, group, resource and name (or URL); at most
// 256 of them. This is the test that keeps users from granting what they lack.
//
// As in Kubernetes, one rule has to cover each combination, "*" is covered
// only by "*", and URLs in a ClusterRole held through a RoleBinding do count.
func (x *Index) Covers(user string, groups []string, namespace string, rules []rbacv1.PolicyRule) (bool, []rbacv1.PolicyRule) {
	c := coverage{x: x, req: Request{User: user, Groups: groups, Namespace: namespace}, left: maxPieces}
	for i := range rules {
		c.rule(&rules[i])
		if len(c.missing) >= maxUncovered {
			break
		}
	}
	return len(c.missing) == 0, c.missing
}

type coverage struct {
	x       *Index
	req     Request
	left    int
	missing []rbacv1.PolicyRule
}

func (c *coverage) rule(r *rbacv1.PolicyRule) {
	if !c.holds(resourcePiece(rbacv1.VerbAll, rbacv1.APIGroupAll, rbacv1.ResourceAll, nil)) {
		c.resources(r)
	}
	if !c.holds(urlPiece(rbacv1.VerbAll, rbacv1.NonResourceAll)) {
		c.urls(r)
	}
}

func (c *coverage) resources(r *rbacv1.PolicyRule) {
	names := make([][]string, 0, max(1, len(r.ResourceNames)))
	for i := range r.ResourceNames {
		names = append(names, r.ResourceNames[i:i+1])
	}
	if len(names) == 0 {
		names = append(names, nil)
	}
	for _, group := range r.APIGroups {
		for _, resource := range r.Resources {
			for _, verb := range r.Verbs {
				for _, name := range names {
					if !c.piece(r, resourcePiece(verb, group, resource, name)) {
						return
					}
				}
			}
		}
	}
}

func (c *coverage) urls(r *rbacv1.PolicyRule) {
	for _, url := range r.NonResourceURLs {
		for _, verb := range r.Verbs {
			if !c.piece(r, urlPiece(verb, url)) {
				return
			}
		}
	}
}

// piece tests one combination of whole and reports whether to go on.
func (c *coverage) piece(whole *rbacv1.PolicyRule, p rbacv1.PolicyRule) bool {
	if c.left--; c.left < 0 {
		c.missing = append(c.missing, *whole)
		return false
	}
	if !c.holds(p) {
		c.missing = append(c.missing, p)
	}
	return len(c.missing) < maxUncovered
}

// holds tests a rule with one verb, group, resource and at most one name. It
// reads as a request: wildcards in it match only themselves in a rule.
func (c *coverage) holds(p rbacv1.PolicyRule) bool {
	q := query{verb: p.Verbs[0], verbBit: verbBit(p.Verbs[0]), unnamed: len(p.ResourceNames) == 0}
	if len(p.NonResourceURLs) > 0 {
		q.url, q.path = true, p.NonResourceURLs[0]
	} else {
		q.group, q.target = p.APIGroups[0], parseTarget(p.Resources[0])
		q.star = q.target.sub
	}
	if !q.unnamed {
		q.name = p.ResourceNames[0]
	}
	return c.x.decide(&c.req, "", &q).Allowed ||
		c.req.Namespace != "" && c.x.decide(&c.req, c.req.Namespace, &q).Allowed
}

func resourcePiece(verb, group, resource string, name []string) rbacv1.PolicyRule {
	return rbacv1.PolicyRule{
		Verbs: []string{verb}, APIGroups: []string{group}, Resources: []string{resource}, ResourceNames: name,
	}
}

func urlPiece(verb, url string) rbacv1.PolicyRule {
	return rbacv1.PolicyRule{Verbs: []string{verb}, NonResourceURLs: []string{url}}
}
