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

// maxListed bounds how many notes of a sort are shown.
const maxListed = 20

// Default adds objects that count where no file defines them.
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

// Index returns the policy of all that was read. An aggregated ClusterRole has the rules of the roles it selects, as a
// server would fill them in; where no file holds any of those, it keeps the rules it was written with.
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

// Count is the number of policy objects read.
func (m *Manifests) Count() int { return len(m.origin) }

// Notes say what a reader of the answers has to know of the files.
func (m *Manifests) Notes() []string {
	notes := append(shortened(m.refused, "objects do not count"), shortened(m.notes, "notes of this kind are not shown")...)
	if len(m.skipped) > 0 {
		notes = append(notes, counted(len(m.skipped), "file holds no manifests and is skipped", "files hold no manifests and are skipped")+
			": "+strings.Join(shortened(m.skipped, ""), ", "))
	}
	if m.homeless > 0 {
		notes = append(notes, counted(m.homeless, "object names no namespace and is", "objects name no namespace and are")+" taken to be in "+m.Namespace)
	}
	if len(m.ignored) > 0 {
		total := 0
		kinds := map[string]bool{}
		for kind, n := range m.ignored {
			total += n
			kinds[kind] = true
		}
		notes = append(notes, counted(total, "object is", "objects are")+" no policy and left out: "+strings.Join(sortedKeys(kinds), ", "))
	}
	if m.defaulted > 0 {
		notes = append(notes, counted(m.defaulted, "default role or binding of Kubernetes counts", "default roles and bindings of Kubernetes count")+
			" besides; --default-roles=false leaves them out")
	}
	return append(notes, m.aggregationNotes()...)
}

// shortened returns the first texts, and how many more there are.
func shortened(texts []string, of string) []string {
	if len(texts) <= maxListed {
		return slices.Clone(texts)
	}
	return append(slices.Clone(texts[:maxListed]), strings.TrimSpace(fmt.Sprintf("%d more %s", len(texts)-maxListed, of)))
}

// Lint returns what is likely wrong with the rules and subjects in the files.
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

// lintSubject finds an account that no file holds and whose name resembles that of one in the files.
func (m *Manifests) lintSubject(s *rbacv1.Subject, bindingNamespace string) string {
	if s.Kind != rbacv1.ServiceAccountKind {
		return ""
	}
	namespace := s.Namespace
	if namespace == "" {
		namespace = bindingNamespace
	}
	if near := Nearest(s.Name, m.accounts[namespace]); near != "" && !m.hasAccount(namespace, s.Name) {
		return fmt.Sprintf("no file holds the service account %s/%s: did you mean %s/%s?", namespace, s.Name, namespace, near)
	}
	return ""
}

// hasAccount reports whether a file holds the account. Every namespace has the account default.
func (m *Manifests) hasAccount(namespace, name string) bool {
	return name == "default" || slices.Contains(m.accounts[namespace], name)
}

// SubjectNotes says so if a subject is an account that no file holds, although files hold accounts or no binding names
// it.
func (m *Manifests) SubjectNotes(p *Policy, s *Subject) []string {
	namespace, name, isAccount := s.Account()
	if !isAccount || m.hasAccount(namespace, name) || len(m.accounts) == 0 && p.binds(s) {
		return nil
	}
	note := fmt.Sprintf("no file holds the service account %s/%s", namespace, name)
	if near := Nearest(name, m.accounts[namespace]); near != "" {
		note += fmt.Sprintf(": did you mean %s/%s?", namespace, near)
	}
	return []string{note}
}

// aggregationNotes says where the rules an aggregated role was written with are not those a server would give it.
func (m *Manifests) aggregationNotes() []string {
	var notes []string
	for _, r := range m.clusterRoles {
		if r.AggregationRule == nil || len(r.Rules) == 0 {
			continue
		}
		rules, err := objects.AggregatedRules(r, m.selected)
		switch {
		case err != nil: // Index says so
		case len(rules) == 0:
			notes = append(notes, "ClusterRole/"+r.Name+" is aggregated from roles that no file holds; the rules it was written with count")
		case !objects.EqualRules(objects.UnionRules(rules, r.Rules), rules):
			notes = append(notes, "ClusterRole/"+r.Name+" is aggregated; those rules it was written with that no selected role has do not count")
		}
	}
	slices.Sort(notes)
	return notes
}
