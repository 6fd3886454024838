package objects

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
)

// ListRoles returns the ClusterRoles whose labels a selector matches, in any
// order. Its caller does not modify them.
type ListRoles func(labels.Selector) ([]*rbacv1.ClusterRole, error)

// Selectors parses the selectors of an aggregation rule. The error names the first one that is malformed.
func Selectors(rule *rbacv1.AggregationRule) ([]labels.Selector, error) {
	if rule == nil {
		return nil, nil
	}
	selectors := make([]labels.Selector, len(rule.ClusterRoleSelectors))
	for i := range rule.ClusterRoleSelectors {
		selector, err := metav1.LabelSelectorAsSelector(&rule.ClusterRoleSelectors[i])
		if err != nil {
			return nil, fmt.Errorf("aggregationRule.clusterRoleSelectors[%d]: %w", i, err)
		}
		selectors[i] = selector
	}
	return selectors, nil
}

// AggregatedRules returns the rules of an aggregated ClusterRole: the union of the rules of the ClusterRoles that its
// selectors match. The slices in the rules belong to those roles.
//
// The order is the same as in Kubernetes: selector by selector, within each selector the roles by name, and each rule once. If a
// matched role is itself aggregated, AggregatedRules uses the rules of the roles that its selectors match, not the rules that it
// has at the moment. Unless roles match themselves through others, the result is the same as in Kubernetes after its controller
// has copied rules from role to role. If roles match each other in a circle, that copying may never end, and keeps rules that no
// role grants any more; here each role of the circle gets the rules of the roles outside the circle.
func AggregatedRules(role *rbacv1.ClusterRole, list ListRoles) ([]rbacv1.PolicyRule, error) {
	selectors, err := Selectors(role.AggregationRule)
	if err != nil {
		return nil, err
	}
	u := union{list: list, visited: map[string]bool{role.Name: true}, has: map[string]bool{}}
	if err := u.addMatched(selectors); err != nil {
		return nil, err
	}
	return u.rules, nil
}

// union collects rules, each once.
type union struct {
	list    ListRoles
	visited map[string]bool // by name of the role
	has     map[string]bool // by keyOf the rule
	rules   []rbacv1.PolicyRule
}

func (u *union) addMatched(selectors []labels.Selector) error {
	for _, selector := range selectors {
		matched, err := u.list(selector)
		if err != nil {
			return err
		}
		matched = slices.SortedFunc(slices.Values(matched), func(a, b *rbacv1.ClusterRole) int { return strings.Compare(a.Name, b.Name) })
		for _, role := range matched {
			if err := u.addRole(role); err != nil {
				return err
			}
		}
	}
	return nil
}

// addRole adds the rules of a matched role. A role that was visited before has
// given all its rules, or is the cause of this visit.
func (u *union) addRole(role *rbacv1.ClusterRole) error {
	if u.visited[role.Name] {
		return nil
	}
	u.visited[role.Name] = true
	// A role whose selectors are malformed keeps the rules it has.
	if selectors, err := Selectors(role.AggregationRule); err == nil && role.AggregationRule != nil {
		return u.addMatched(selectors)
	}
	u.add(role.Rules)
	return nil
}

func (u *union) add(rules []rbacv1.PolicyRule) {
	for i := range rules {
		if s := keyOf(&rules[i]); !u.has[s] {
			u.has[s] = true
			u.rules = append(u.rules, rules[i])
		}
	}
}

// UnionRules returns the rules of all lists, in order, each once.
func UnionRules(lists ...[]rbacv1.PolicyRule) []rbacv1.PolicyRule {
	u := union{has: map[string]bool{}}
	for _, rules := range lists {
		u.add(rules)
	}
	return u.rules
}

// EqualRules reports whether two lists hold the same rules in the same order.
func EqualRules(a, b []rbacv1.PolicyRule) bool {
	return slices.EqualFunc(a, b, func(a, b rbacv1.PolicyRule) bool { return keyOf(&a) == keyOf(&b) })
}

// keyOf returns a text that two rules share only if they are equal: it contains the lengths of all their parts. An empty
// list equals a nil one.
func keyOf(r *rbacv1.PolicyRule) string {
	var b []byte
	for _, list := range [][]string{r.Verbs, r.APIGroups, r.Resources, r.ResourceNames, r.NonResourceURLs} {
		b = append(strconv.AppendInt(b, int64(len(list)), 10), ' ')
		for _, item := range list {
			b = append(strconv.AppendInt(b, int64(len(item)), 10), ' ')
			b = append(b, item...)
		}
	}
	return string(b)
}
