// Package rbactest evaluates authorization requests in a simple and slow way, so that tests can compare package rbac with it.
// It looks at every binding and every rule for every request. It shares no code with package rbac except the type of
// requests, and returns no reasons.
package rbactest

import (
	"slices"
	"strings"

	rbacv1 "k8s.io/api/rbac/v1"

	"lanyard.dev/internal/rbac"
)

// Policy is a set of objects by name or, for namespaced ones, by "namespace/name". It is not safe for concurrent use.
type Policy struct {
	Roles               map[string]*rbacv1.Role
	ClusterRoles        map[string]*rbacv1.ClusterRole
	RoleBindings        map[string]*rbacv1.RoleBinding
	ClusterRoleBindings map[string]*rbacv1.ClusterRoleBinding
}

// NewPolicy returns a policy without objects.
func NewPolicy() *Policy {
	return &Policy{
		Roles:               map[string]*rbacv1.Role{},
		ClusterRoles:        map[string]*rbacv1.ClusterRole{},
		RoleBindings:        map[string]*rbacv1.RoleBinding{},
		ClusterRoleBindings: map[string]*rbacv1.ClusterRoleBinding{},
	}
}

// Allows decides a request.
func (p *Policy) Allows(req rbac.Request) bool {
	for _, rule := range p.Rules(req.User, req.Groups, effectiveNamespace(req)) {
		if allows(rule, req) {
			return true
		}
	}
	return false
}

func effectiveNamespace(req rbac.Request) string {
	if !req.ResourceRequest {
		return ""
	}
	return req.Namespace
}

// Rules returns the rules that bindings give a user in a namespace. For an empty namespace it returns only the rules of
// ClusterRoleBindings.
func (p *Policy) Rules(user string, groups []string, namespace string) []rbacv1.PolicyRule {
	var rules []rbacv1.PolicyRule
	for _, b := range p.ClusterRoleBindings {
		if concerns(b.Subjects, user, groups, "") && b.RoleRef.Kind == "ClusterRole" {
			rules = append(rules, p.clusterRole(b.RoleRef.Name)...)
		}
	}
	for _, b := range p.RoleBindings {
		if namespace == "" || b.Namespace != namespace || !concerns(b.Subjects, user, groups, namespace) {
			continue
		}
		switch b.RoleRef.Kind {
		case "ClusterRole":
			rules = append(rules, p.clusterRole(b.RoleRef.Name)...)
		case "Role":
			if r := p.Roles[namespace+"/"+b.RoleRef.Name]; r != nil {
				rules = append(rules, r.Rules...)
			}
		}
	}
	return rules
}

func (p *Policy) clusterRole(name string) []rbacv1.PolicyRule {
	if r := p.ClusterRoles[name]; r != nil {
		return r.Rules
	}
	return nil
}

func concerns(subjects []rbacv1.Subject, user string, groups []string, namespace string) bool {
	return slices.ContainsFunc(subjects, func(s rbacv1.Subject) bool {
		switch s.Kind {
		case "User":
			return s.Name == user
		case "Group":
			return slices.Contains(groups, s.Name)
		case "ServiceAccount":
			ns := s.Namespace
			if ns == "" {
				ns = namespace
			}
			return ns != "" && user == "system:serviceaccount:"+ns+":"+s.Name
		}
		return false
	})
}

func allows(rule rbacv1.PolicyRule, req rbac.Request) bool {
	if !oneOf(rule.Verbs, req.Verb) {
		return false
	}
	if !req.ResourceRequest {
		return slices.ContainsFunc(rule.NonResourceURLs, func(url string) bool { return covers(url, req.Path) })
	}
	named := len(rule.ResourceNames) == 0 || slices.Contains(rule.ResourceNames, req.Name)
	return named && oneOf(rule.APIGroups, req.APIGroup) && resources(rule.Resources, req.Resource, req.Subresource)
}

func oneOf(list []string, s string) bool {
	return slices.Contains(list, "*") || slices.Contains(list, s)
}

func resources(list []string, resource, sub string) bool {
	if sub == "" {
		return oneOf(list, resource)
	}
	return oneOf(list, resource+"/"+sub) || slices.Contains(list, "*/"+sub)
}

func covers(url, path string) bool {
	prefix := strings.TrimRight(url, "*")
	return url == path || prefix != url && strings.HasPrefix(path, prefix)
}
