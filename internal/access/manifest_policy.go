package access

import (
	"fmt"
	"slices"
	"strings"

	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/labels"

	"lanyard.dev/internal/rbac"
	"lanyard.dev/internal/rbac/objects"
)

// maxListed is the limit for the notes of one kind.
const maxListed = 20

// Default adds objects unless a file defines them.
func (m *Manifests) Default(roles []*rbacv1.ClusterRole, bindings []*rbacv1.ClusterRoleBinding) {
	for _, r := range roles {
		if m.clusterRoles[r.Name] == nil {
			m.clusterRoles[r.Name] = r
			m.defaulted++
		}
	}
	for _, b := range bindings {
		if m.clusterRoleBindings[b.Name] == nil {
			m.clusterRoleBindings[b.Name] = b
			m.defaulted++
		}
	}
}

// Index returns the policy of all objects. An aggregated ClusterRole gets the rules of the roles that it selects, as on a
// server. If no file contains any of them, it keeps the rules in its manifest.
func (m *Manifests) Index() (*rbac.Index, error) {
	x := rbac.NewIndex()
	for _, r := range m.clusterRoles {
		if r.AggregationRule != nil {
			rules, err := objects.AggregatedRules(r, m.selected)
			if err != nil {
				return nil, fmt.Errorf("%s: ClusterRole %s: %w", m.origin[rbac.Ref{Kind: rbac.ClusterRole, Name: r.Name}], r.Name, err)
			}
			if len(rules) > 0 {
				whole := *r
				whole.Rules = rules
				r = &whole
			}
		}
		x.SetClusterRole(r)
	}
	for _, r := range m.roles {
		x.SetRole(r)
	}
	for _, b := range m.roleBindings {
		x.SetRoleBinding(b)
	}
	for _, b := range m.clusterRoleBindings {
		x.SetClusterRoleBinding(b)
	}
	return x, nil
}

// selected implements objects.ListRoles.
func (m *Manifests) selected(selector labels.Selector) (matched []*rbacv1.ClusterRole, err error) {
	for _, r := range m.clusterRoles {
		if selector.Matches(labels.Set(r.Labels)) {
			matched = append(matched, r)
		}
	}
	return matched, nil
}

// Count returns the number of policy objects in the files.
func (m *Manifests) Count() int { return len(m.origin) }

// Notes returns what a reader of the answers needs to know about the files.
func (m *Manifests) Notes() []string {
	notes := append(shortened(m.refused, "objects are ignored"), shortened(m.notes, "notes of this kind are not shown")...)
	if len(m.skipped) > 0 {
		notes = append(notes, counted(len(m.skipped), "file holds no manifests and is skipped", "files hold no manifests and are skipped")+
			": "+strings.Join(shortened(m.skipped, ""), ", "))
	}
	if m.withoutNamespace > 0 {
		notes = append(notes, counted(m.withoutNamespace, "object names no namespace and is", "objects name no namespace and are")+" assumed to be in "+m.Namespace)
	}
	if len(m.ignored) > 0 {
		total := 0
		kinds := map[string]bool{}
		for kind, n := range m.ignored {
			total += n
			kinds[kind] = true
		}
		notes = append(notes, counted(total, "object is not policy and is", "objects are not policy and are")+" ignored: "+strings.Join(sortedKeys(kinds), ", "))
	}
	if m.defaulted > 0 {
		notes = append(notes, counted(m.defaulted, "default role or binding is", "default roles and bindings are")+
			" included; leave them out with --default-roles=false")
	}
	return append(notes, m.aggregationNotes()...)
}

// shortened returns the first texts, and the number of the others.
func shortened(texts []string, of string) []string {
	if len(texts) <= maxListed {
		return slices.Clone(texts)
	}
	return append(slices.Clone(texts[:maxListed]), strings.TrimSpace(fmt.Sprintf("%d more %s", len(texts)-maxListed, of)))
}

// Lint returns the likely mistakes in the rules and subjects of the files.
func (m *Manifests) Lint(c *Catalog) []string {
	var faults []string
	rules := func(ref rbac.Ref, rules []rbacv1.PolicyRule) {
		if m.origin[ref] == "" {
			return // a default
		}
		for i := range rules {
			for _, fault := range c.Lint(&rules[i]) {
				faults = append(faults, fmt.Sprintf("%s in %s: rules[%d]: %s", objectOf(ref), m.origin[ref], i, fault))
			}
		}
	}
	subjects := func(ref rbac.Ref, list []rbacv1.Subject) {
		for i := range list {
			if fault := m.lintSubject(&list[i], ref.Namespace); fault != "" {
				faults = append(faults, fmt.Sprintf("%s in %s: subjects[%d]: %s", objectOf(ref), m.origin[ref], i, fault))
			}
		}
	}
	for _, r := range m.clusterRoles {
		rules(rbac.Ref{Kind: rbac.ClusterRole, Name: r.Name}, r.Rules)
	}
	for ref, r := range m.roles {
		rules(ref, r.Rules)
	}
	for _, b := range m.clusterRoleBindings {
		subjects(rbac.Ref{Kind: rbac.ClusterRoleBinding, Name: b.Name}, b.Subjects)
	}
	for ref, b := range m.roleBindings {
		subjects(ref, b.Subjects)
	}
	slices.Sort(faults)
	return shortened(faults, "notes of this kind are not shown")
}

// lintSubject returns a fault if the subject is an account that no file contains, but one with a similar name is there.
func (m *Manifests) lintSubject(s *rbacv1.Subject, bindingNamespace string) string {
	if s.Kind != rbacv1.ServiceAccountKind {
		return ""
	}
	namespace := s.Namespace
	if namespace == "" {
		namespace = bindingNamespace
	}
	if near := Nearest(s.Name, m.accounts[namespace]); near != "" && !m.hasAccount(namespace, s.Name) {
		return fmt.Sprintf("no file contains the service account %s/%s: did you mean %s/%s?", namespace, s.Name, namespace, near)
	}
	return ""
}

// hasAccount reports whether a file contains the account. Every namespace has the account default.
func (m *Manifests) hasAccount(namespace, name string) bool {
	return name == "default" || slices.Contains(m.accounts[namespace], name)
}

// SubjectNotes returns a note if the subject is an account that no file contains, and the files contain other accounts or no
// binding names it.
func (m *Manifests) SubjectNotes(p *Policy, s *Subject) []string {
	namespace, name, isAccount := s.Account()
	if !isAccount || m.hasAccount(namespace, name) || len(m.accounts) == 0 && p.binds(s) {
		return nil
	}
	note := fmt.Sprintf("no file contains the service account %s/%s", namespace, name)
	if near := Nearest(name, m.accounts[namespace]); near != "" {
		note += fmt.Sprintf(": did you mean %s/%s?", namespace, near)
	}
	return []string{note}
}

// aggregationNotes returns a note for each aggregated role whose rules in the manifest differ from those on a server.
func (m *Manifests) aggregationNotes() []string {
	var notes []string
	for _, r := range m.clusterRoles {
		if r.AggregationRule == nil || len(r.Rules) == 0 {
			continue
		}
		rules, err := objects.AggregatedRules(r, m.selected)
		switch {
		case err != nil: // Index returns it
		case len(rules) == 0:
			notes = append(notes, "ClusterRole/"+r.Name+" is aggregated from roles that no file contains; its written rules are used")
		case !objects.EqualRules(objects.UnionRules(rules, r.Rules), rules):
			notes = append(notes, "ClusterRole/"+r.Name+" is aggregated; its written rules that no selected role has are ignored")
		}
	}
	slices.Sort(notes)
	return notes
}
