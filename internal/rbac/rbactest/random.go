package rbactest

import (
	"fmt"
	"math/rand/v2"

	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"lanyard.dev/internal/rbac"
)

// Random generates policy objects and requests with names from small sets, so that requests often match rules, in every way.
type Random struct{ *rand.Rand }

// There are more bindings than roles, so that some identities have many.
const (
	roleNames    = 14 // of each kind, in each namespace
	bindingNames = 60
)

var (
	users      = []string{"ann", "bob", "system:serviceaccount:a:x", "system:serviceaccount:b:x", "system:serviceaccount:a:y", ""}
	groups     = []string{"g1", "g2", "system:authenticated", "system:serviceaccounts"}
	namespaces = []string{"a", "b", "c"}
	verbs      = []string{"get", "list", "create", "deletecollection", "odd", "*"}
	apiGroups  = []string{"", "apps", "batch", "*"}
	resourceV  = []string{"pods", "pods/log", "secrets", "*", "*/log", "*/scale", "pods/*", "jobs/scale", "pods/", "*/", "pods/log/x", "*/log/x"}
	names      = []string{"n1", "n2", "n3", "", "*"}
	urls       = []string{"/healthz", "/healthz/*", "/api/*", "/api/", "*", "/a*i", "/apis/**", "/healthz/ping"}
	paths      = []string{"/healthz", "/healthz/", "/healthz/ping", "/api", "/api/", "/api/v1", "/a", "/apis/x", "/", "", "*"}
	subs       = []string{"", "", "log", "scale", "*", "log/x"}
	kinds      = []string{"User", "Group", "ServiceAccount", "user", "Robot"}
)

func pick[T any](r Random, list []T) T { return list[r.IntN(len(list))] }

// pickSome returns 1 to most random items, and sometimes none.
func pickSome(r Random, list []string, most int) []string {
	n := 1 + r.IntN(most)
	if r.IntN(8) == 0 {
		n = 0
	}
	out := make([]string, n)
	for i := range out {
		out[i] = pick(r, list)
	}
	return out
}

// Rules returns up to 20 random rules, mostly few.
func (r Random) Rules() []rbacv1.PolicyRule {
	n := 1 + r.IntN(4)
	if r.IntN(4) == 0 {
		n = r.IntN(21)
	}
	rules := make([]rbacv1.PolicyRule, n)
	for i := range rules {
		rules[i] = r.rule()
	}
	return rules
}

func (r Random) rule() rbacv1.PolicyRule {
	p := rbacv1.PolicyRule{Verbs: pickSome(r, verbs, 3)}
	if r.IntN(4) > 0 {
		p.APIGroups, p.Resources = pickSome(r, apiGroups, 2), pickSome(r, resourceV, 3)
		if r.IntN(2) == 0 {
			p.ResourceNames = pickSome(r, names, 3)
		}
	}
	if r.IntN(3) == 0 {
		p.NonResourceURLs = pickSome(r, urls, 2)
	}
	return p
}

// Subjects returns up to four random subjects, some of which cannot match any user.
func (r Random) Subjects() []rbacv1.Subject {
	out := make([]rbacv1.Subject, r.IntN(5))
	for i := range out {
		switch kind := pick(r, kinds); kind {
		case "Group":
			out[i] = rbacv1.Subject{Kind: kind, Name: pick(r, groups)}
		case "ServiceAccount":
			out[i] = rbacv1.Subject{Kind: kind, Name: pick(r, []string{"x", "y"}), Namespace: pick(r, []string{"", "a", "b"})}
		default:
			out[i] = rbacv1.Subject{Kind: kind, Name: pick(r, users)}
		}
	}
	return out
}

// Request returns a random request.
func (r Random) Request() rbac.Request {
	req := rbac.Request{User: pick(r, users), Groups: pickSome(r, groups, 3), Verb: pick(r, verbs)}
	if r.IntN(4) == 0 {
		req.Path = pick(r, paths)
		return req
	}
	req.ResourceRequest = true
	req.APIGroup, req.Resource, req.Subresource = pick(r, apiGroups), pick(r, resourceV), pick(r, subs)
	req.Name, req.Namespace = pick(r, names), pick(r, append(namespaces, ""))
	return req
}

// Change makes a random change to the policy and returns a function that makes the same change to an index. The version of a
// change increases with step, so an index ends with the same policy whatever the order of the changes.
func (r Random) Change(p *Policy, step int) func(*rbac.Index) {
	ref := rbac.Ref{Kind: rbac.Kind(r.IntN(4)), Name: fmt.Sprint("o", r.IntN(bindingNames))}
	if ref.Kind == rbac.Role || ref.Kind == rbac.ClusterRole {
		ref.Name = fmt.Sprint("o", r.IntN(roleNames))
	}
	if ref.Kind == rbac.Role || ref.Kind == rbac.RoleBinding {
		ref.Namespace = pick(r, namespaces)
	}
	version := fmt.Sprint(step + 1)
	if r.IntN(3) == 0 {
		p.remove(ref)
		return func(x *rbac.Index) { x.Delete(ref, version) }
	}
	meta := metav1.ObjectMeta{Namespace: ref.Namespace, Name: ref.Name, ResourceVersion: version}
	switch ref.Kind {
	case rbac.Role:
		o := &rbacv1.Role{ObjectMeta: meta, Rules: r.Rules()}
		p.Roles[key(ref)] = o
		return func(x *rbac.Index) { x.SetRole(o) }
	case rbac.ClusterRole:
		o := &rbacv1.ClusterRole{ObjectMeta: meta, Rules: r.Rules()}
		p.ClusterRoles[ref.Name] = o
		return func(x *rbac.Index) { x.SetClusterRole(o) }
	case rbac.RoleBinding:
		o := &rbacv1.RoleBinding{ObjectMeta: meta, RoleRef: r.roleRef(), Subjects: r.Subjects()}
		p.RoleBindings[key(ref)] = o
		return func(x *rbac.Index) { x.SetRoleBinding(o) }
	default:
		o := &rbacv1.ClusterRoleBinding{ObjectMeta: meta, RoleRef: r.roleRef(), Subjects: r.Subjects()}
		p.ClusterRoleBindings[ref.Name] = o
		return func(x *rbac.Index) { x.SetClusterRoleBinding(o) }
	}
}

func key(ref rbac.Ref) string { return ref.Namespace + "/" + ref.Name }

func (p *Policy) remove(ref rbac.Ref) {
	switch ref.Kind {
	case rbac.Role:
		delete(p.Roles, key(ref))
	case rbac.ClusterRole:
		delete(p.ClusterRoles, ref.Name)
	case rbac.RoleBinding:
		delete(p.RoleBindings, key(ref))
	case rbac.ClusterRoleBinding:
		delete(p.ClusterRoleBindings, ref.Name)
	}
}

func (r Random) roleRef() rbacv1.RoleRef {
	return rbacv1.RoleRef{
		APIGroup: rbacv1.GroupName,
		Kind:     pick(r, []string{"Role", "ClusterRole", "ClusterRole", "Group"}),
		Name:     fmt.Sprint("o", r.IntN(roleNames)),
	}
}
