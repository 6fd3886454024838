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
