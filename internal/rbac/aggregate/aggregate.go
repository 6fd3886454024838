package aggregate

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
)

// List returns the ClusterRoles whose labels a selector matches, in any order.
// They are not modified.
type List func(labels.Selector) ([]*rbacv1.ClusterRole, error)

// Selectors reads the selectors of a rule. The error names the first that is
// malformed.
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

// Rules returns what the selectors of a role give it. The slices in the rules
// belong to the roles they come from.
func Rules(role *rbacv1.ClusterRole, list List) ([]rbacv1.PolicyRule, error) {
	selectors, err := Selectors(role.AggregationRule)
	if err != nil {
		return nil, err
	}
	u := union{list: list, visited: map[string]bool{role.Name: true}, held: map[string]bool{}}
	if err := u.gather(selectors); err != nil {
		return nil, err
	}
	return u.rules, nil
}

// union is the rules gathered so far.
type union struct {
	list    List
	visited map[string]bool // names of roles
	held    map[string]bool // spellings of rules
	rules   []rbacv1.PolicyRule
}

func (u *union) gather(selectors []labels.Selector) error {
	for _, selector := range selectors {
		matched, err := u.list(selector)
		if err != nil {
			return err
		}
		matched = slices.SortedFunc(slices.Values(matched), func(a, b *rbacv1.ClusterRole) int { return strings.Compare(a.Name, b.Name) })
		for _, role := range matched {
			if err := u.visit(role); err != nil {
				return err
			}
		}
	}
	return nil
}

// visit adds what a role stands for. What was visited before has given all it
// can, or is being visited further out.
func (u *union) visit(role *rbacv1.ClusterRole) error {
	if u.visited[role.Name] {
		return nil
	}
	u.visited[role.Name] = true
	// A role whose selectors cannot be read keeps the rules it has.
	if selectors, err := Selectors(role.AggregationRule); err == nil && role.AggregationRule != nil {
		return u.gather(selectors)
	}
	u.add(role.Rules)
	return nil
}

func (u *union) add(rules []rbacv1.PolicyRule) {
	for i := range rules {
		if s := spell(&rules[i]); !u.held[s] {
			u.held[s] = true
			u.rules = append(u.rules, rules[i])
		}
	}
}

// Union returns the rules of all lists, in order and each once.
func Union(lists ...[]rbacv1.PolicyRule) []rbacv1.PolicyRule {
	u := union{held: map[string]bool{}}
	for _, rules := range lists {
		u.add(rules)
	}
	return u.rules
}

// Equal tells whether two lists hold the same rules in the same order.
func Equal(a, b []rbacv1.PolicyRule) bool {
	return slices.EqualFunc(a, b, func(a, b rbacv1.PolicyRule) bool { return spell(&a) == spell(&b) })
}

// spell writes a rule with the lengths of all its parts, so that two rules
// have one spelling only if they are equal. An empty list equals none.
func spell(r *rbacv1.PolicyRule) string {
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
