package rbac

import (
	"iter"
	"maps"
	"slices"

	rbacv1 "k8s.io/api/rbac/v1"
)

// Rules are the rules of a user in a namespace.
type Rules struct {
	Resource    []rbacv1.PolicyRule
	NonResource []rbacv1.PolicyRule
}

// RulesFor returns the rules that apply to a user in a namespace, including cluster-wide ones; for an empty namespace only
// those. The rules of a role are returned once, however many bindings grant it. NonResource has only rules that
// ClusterRoleBindings grant, because others have no effect. The caller must not change the rules.
func (x *Index) RulesFor(user string, groups []string, namespace string) Rules {
	var out Rules
	seen := map[*slot]bool{}
	req := Request{User: user, Groups: groups, Namespace: namespace}
	x.eachState(&req, func(ns string, st *scopeState) {
		st.each(func(g *grant) bool {
			if r := g.slot.role.Load(); r != nil && !seen[g.slot] {
				// The cluster-wide scope comes first, where a role grants more.
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

// Grant is the effect of a binding on one of its subjects: the subject gets the role's rules in the namespace of the binding
// or, from a ClusterRoleBinding, everywhere.
type Grant struct {
	Binding Ref
	Role    Ref
	// Subject is the subject in the binding. The namespace of a service account is set.
	Subject rbacv1.Subject
	// Rules are nil, and Dangling is set, if the role does not exist.
	Rules    []rbacv1.PolicyRule
	Dangling bool
}

// Grants returns every grant, in no particular order: the bindings at the start of the iteration, each with its role at the
// time when it is yielded. Subjects that cannot match any user are left out.
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

// Roles returns the roles that exist at the start of the iteration, with their rules, in no particular order. The caller must
// not change the rules.
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

// GrantsFor returns each grant to a user that applies in a namespace, in the order of Authorize.
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
	// maxPieces is the limit for the combinations of verb, group, resource and name that one call of Covers tests. The rules that
	// are left are treated as not covered. A rule of 20 KiB can have billions of combinations.
	maxPieces = 1 << 20
	// maxUncovered is the limit for the rules that Covers returns.
	maxUncovered = 256
)

// Covers reports whether a user has every permission of the rules in a namespace or, if it is empty, cluster-wide. If not,
// it returns up to 256 missing permissions, each a rule with one verb, group, resource and name (or URL). It keeps users from
// granting permissions that they do not have.
//
// As in Kubernetes, a single rule has to cover each combination, "*" is covered only by "*", and URLs in a ClusterRole count
// even if a RoleBinding grants it.
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
	if !c.hasPermission(resourcePiece(rbacv1.VerbAll, rbacv1.APIGroupAll, rbacv1.ResourceAll, nil)) {
		c.resources(r)
	}
	if !c.hasPermission(urlPiece(rbacv1.VerbAll, rbacv1.NonResourceAll)) {
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
					if !c.check(r, resourcePiece(verb, group, resource, name)) {
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
			if !c.check(r, urlPiece(verb, url)) {
				return
			}
		}
	}
}

// check tests one combination of a rule and reports whether to continue.
func (c *coverage) check(whole *rbacv1.PolicyRule, p rbacv1.PolicyRule) bool {
	if c.left--; c.left < 0 {
		c.missing = append(c.missing, *whole)
		return false
	}
	if !c.hasPermission(p) {
		c.missing = append(c.missing, p)
	}
	return len(c.missing) < maxUncovered
}

// hasPermission tests a rule with one verb, group, resource and at most one name, as a request. So wildcards in it match only
// wildcards.
func (c *coverage) hasPermission(p rbacv1.PolicyRule) bool {
	q := query{verb: p.Verbs[0], verbBit: verbBit(p.Verbs[0]), everyName: len(p.ResourceNames) == 0}
	if len(p.NonResourceURLs) > 0 {
		q.url, q.path = true, p.NonResourceURLs[0]
	} else {
		q.group, q.target = p.APIGroups[0], parseTarget(p.Resources[0])
		q.star = q.target.sub
	}
	if !q.everyName {
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
