package admission

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
)

// Permissions reports the permissions of users; *rbac.Index implements it. Covers reports whether a user has all of the
// rules in a namespace, or in every namespace if it is empty, and returns those that are missing.
type Permissions interface {
	Covers(user string, groups []string, namespace string, rules []rbacv1.PolicyRule) (ok bool, missing []rbacv1.PolicyRule)
}

// FindRules returns the rules of a stored role, or a not-found API error. namespace is empty for cluster roles.
type FindRules func(ctx context.Context, kind, namespace, name string) ([]rbacv1.PolicyRule, error)

// escalation refuses to grant permissions that the writer does not have.
//
// A user may write a role with rules that the user has in the same scope, or with any rules if the user has the verb
// escalate on the role. A user may write a binding of a role whose rules the user has, or of any role on which the user
// has the verb bind. Members of system:masters may write both.
type escalation struct {
	*admission.Handler
	permissions Permissions
	authorizer  authorizer.UnconditionalAuthorizer
	find        FindRules
}

var _ admission.ValidationInterface = &escalation{}

func newEscalation(permissions Permissions, az authorizer.UnconditionalAuthorizer, find FindRules) *escalation {
	return &escalation{Handler: admission.NewHandler(admission.Create, admission.Update), permissions: permissions, authorizer: az, find: find}
}

// grant is what a write grants: rules in the namespace of the request, or in every namespace if that is empty.
type grant struct {
	rules []rbacv1.PolicyRule
	// A caller with verb on the role called name, of the type resource, may grant rules without having them.
	verb, resource, name string
	// aggregates is true if rules are those that an aggregation rule may grant.
	aggregates bool
}

// Validate implements admission.ValidationInterface.
func (p *escalation) Validate(ctx context.Context, a admission.Attributes, _ admission.ObjectInterfaces) error {
	if a.GetResource().Group != rbacv1.GroupName || a.GetSubresource() != "" || privileged(a.GetUserInfo()) {
		return nil
	}
	who := a.GetUserInfo()
	if who == nil {
		return admission.NewForbidden(a, errors.New("no user on request"))
	}
	g := grantOf(a)
	if g == nil {
		return nil
	}
	if exempt, err := p.exempt(ctx, a, g); err != nil || exempt {
		return err
	}
	if g.rules == nil {
		var err error
		if g.rules, err = p.find(ctx, kindOf(g.resource), namespaceOf(g.resource, a), g.name); err != nil {
			return err
		}
	}
	ok, missing := p.permissions.Covers(who.GetName(), who.GetGroups(), a.GetNamespace(), g.rules)
	switch {
	case ok:
		return nil
	case g.aggregates:
		return admission.NewForbidden(a, errors.New("must have cluster-admin privileges to use the aggregationRule"))
	}
	return admission.NewForbidden(a, refusal(who, missing))
}

// privileged reports whether a user may do everything.
func privileged(who user.Info) bool {
	return who != nil && slices.Contains(who.GetGroups(), user.SystemPrivilegedGroup)
}

// grantOf returns what a write grants. It returns nil for other kinds, and for updates that change only the fields of
// the garbage collector. Every other update is taken as a grant of the whole object, as in Kubernetes: metadata alone
// can freeze a default role (autoupdate: "false") or make its rules part of another role (labels). The rules of a
// binding are read later, so that a caller who may bind the role does not learn whether it exists.
func grantOf(a admission.Attributes) *grant {
	if touchesOwnershipOnly(a.GetObject(), a.GetOldObject()) {
		return nil
	}
	switch obj := a.GetObject().(type) {
	case *rbacv1.Role:
		return roleGrant("roles", a.GetName(), obj.Rules)
	case *rbacv1.ClusterRole:
		old, _ := a.GetOldObject().(*rbacv1.ClusterRole)
		if aggregates(obj) || aggregates(old) {
			g := roleGrant("clusterroles", a.GetName(), everything) // which includes the rules of the role itself
			g.aggregates = true
			return g
		}
		return roleGrant("clusterroles", a.GetName(), obj.Rules)
	case *rbacv1.RoleBinding:
		return bindingGrant(obj.RoleRef)
	case *rbacv1.ClusterRoleBinding:
		return bindingGrant(obj.RoleRef)
	}
	return nil
}

// touchesOwnershipOnly reports whether an update changes only what the garbage collector writes: owner references,
// finalizers, and managedFields, which record every update.
func touchesOwnershipOnly(obj, old runtime.Object) bool {
	if obj == nil || old == nil {
		return false
	}
	same := obj.DeepCopyObject()
	to, err := meta.Accessor(same)
	if err != nil {
		return false
	}
	from, err := meta.Accessor(old)
	if err != nil {
		return false
	}
	to.SetOwnerReferences(from.GetOwnerReferences())
	to.SetFinalizers(from.GetFinalizers())
	to.SetManagedFields(from.GetManagedFields())
	return equality.Semantic.DeepEqual(same, old)
}

// everything is what an aggregation rule grants: the rules of any role that is labelled for it later. An update that
// removes the aggregation rule also grants everything, since the role then keeps rules that aggregation would have
// removed.
var everything = []rbacv1.PolicyRule{
	{Verbs: []string{"*"}, APIGroups: []string{"*"}, Resources: []string{"*"}},
	{Verbs: []string{"*"}, NonResourceURLs: []string{"*"}},
}

func aggregates(role *rbacv1.ClusterRole) bool {
	return role != nil && role.AggregationRule != nil && len(role.AggregationRule.ClusterRoleSelectors) > 0
}

func roleGrant(resource, name string, rules []rbacv1.PolicyRule) *grant {
	if rules == nil {
		rules = []rbacv1.PolicyRule{}
	}
	return &grant{rules: rules, verb: "escalate", resource: resource, name: name}
}

func bindingGrant(ref rbacv1.RoleRef) *grant {
	resource := "roles"
	if ref.Kind == "ClusterRole" {
		resource = "clusterroles"
	}
	return &grant{verb: "bind", resource: resource, name: ref.Name}
}

func kindOf(resource string) string {
	if resource == "clusterroles" {
		return "ClusterRole"
	}
	return "Role"
}

func namespaceOf(resource string, a admission.Attributes) string {
	if resource == "clusterroles" {
		return ""
	}
	return a.GetNamespace()
}

// exempt reports whether the caller may grant the rules without having them. For a binding, the caller needs that
// permission in the namespace of the binding.
func (p *escalation) exempt(ctx context.Context, a admission.Attributes, g *grant) (bool, error) {
	return allows(ctx, p.authorizer, authorizer.AttributesRecord{
		User: a.GetUserInfo(), Verb: g.verb, Namespace: a.GetNamespace(), Name: g.name,
		APIGroup: rbacv1.GroupName, APIVersion: "*", Resource: g.resource, ResourceRequest: true,
	})
}

// maxNamed is how many missing rules a refusal lists at most.
const maxNamed = 20

func refusal(who user.Info, missing []rbacv1.PolicyRule) error {
	lines := make([]string, 0, len(missing))
	for _, rule := range missing[:min(len(missing), maxNamed)] {
		lines = append(lines, describe(rule))
	}
	if more := len(missing) - maxNamed; more > 0 {
		lines = append(lines, fmt.Sprintf("and %d more", more))
	}
	groups := slices.Sorted(slices.Values(who.GetGroups()))
	return fmt.Errorf("user %q (groups=%q) is attempting to grant RBAC permissions not currently held:\n%s",
		who.GetName(), groups, strings.Join(lines, "\n"))
}

// describe formats a rule as Kubernetes does: {APIGroups:["apps"], Resources:["deployments"], Verbs:["get"]}.
func describe(rule rbacv1.PolicyRule) string {
	var parts []string
	for _, part := range []struct {
		name   string
		values []string
	}{
		{"APIGroups", rule.APIGroups}, {"Resources", rule.Resources}, {"ResourceNames", rule.ResourceNames},
		{"NonResourceURLs", rule.NonResourceURLs}, {"Verbs", rule.Verbs},
	} {
		if len(part.values) > 0 {
			parts = append(parts, fmt.Sprintf("%s:%q", part.name, part.values))
		}
	}
	return "{" + strings.ReplaceAll(strings.Join(parts, ", "), `" "`, `", "`) + "}"
}
