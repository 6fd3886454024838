package access

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	rbacv1 "k8s.io/api/rbac/v1"

	"lanyard.dev/internal/account"
	"lanyard.dev/internal/rbac"
)

// Policy answers questions about an index. If the index changes meanwhile, an answer may combine states of a short period.
type Policy struct {
	index *rbac.Index
	// unread are roles that may exist but could not be read.
	unread map[rbac.Ref]bool
}

// New returns a policy over an index.
func New(index *rbac.Index) *Policy { return &Policy{index: index} }

// WithUnread returns a policy over an index that lacks roles because they could not be read.
func WithUnread(index *rbac.Index, roles map[rbac.Ref]bool) *Policy {
	return &Policy{index: index, unread: roles}
}

// lacking returns the reason why the index has no rules of a role that a binding refers to.
func (p *Policy) lacking(role rbac.Ref) string {
	if p.unread[role] {
		return "which could not be read"
	}
	return "which does not exist"
}

// eachRule calls yield with each rule of each role, bound or not.
func (p *Policy) eachRule(yield func(*rbacv1.PolicyRule) bool) {
	for _, rules := range p.index.Roles() {
		for i := range rules {
			if !yield(&rules[i]) {
				return
			}
		}
	}
}

// Typos returns the likely mistakes in the rules that are granted to the subject.
func (p *Policy) Typos(c *Catalog, s *Subject) []string {
	faults := map[string]bool{}
	seen := map[rbac.Ref]bool{}
	for g := range p.index.Grants() {
		if seen[g.Role] || !s.matches(&g.Subject) {
			continue
		}
		seen[g.Role] = true
		for i := range g.Rules {
			for _, fault := range c.Lint(&g.Rules[i]) {
				faults[fmt.Sprintf("%s: rules[%d]: %s", objectOf(g.Role), i, fault)] = true
			}
		}
	}
	return shortened(sortedKeys(faults), "notes of this kind are not shown")
}

// similar returns a note if no binding names the user or group, but one names another with a similar name.
func (p *Policy) similar(s *Subject) []string {
	kind, name := rbacv1.UserKind, s.User
	if name == "" && len(s.Groups) > 0 {
		kind, name = rbacv1.GroupKind, s.Groups[0]
	}
	if strings.HasPrefix(name, accountPrefix) || strings.HasPrefix(name, nodePrefix) || p.binds(s) {
		return nil
	}
	bound := map[string]bool{}
	for g := range p.index.Grants() {
		if g.Subject.Kind == kind && !strings.HasPrefix(g.Subject.Name, "system:") {
			bound[g.Subject.Name] = true
		}
	}
	if near := Nearest(name, sortedKeys(bound)); near != "" {
		return []string{fmt.Sprintf("no binding names the %s %s: did you mean %s?", strings.ToLower(kind), name, near)}
	}
	return nil
}

// binds reports whether a binding names the subject itself, and not only one of its implicit groups.
func (p *Policy) binds(s *Subject) bool {
	alone := Subject{User: s.User}
	if s.User == "" && len(s.Groups) > 0 {
		alone.Groups = s.Groups[:1] // the group in the question
	}
	for g := range p.index.Grants() {
		if alone.matches(&g.Subject) {
			return true
		}
	}
	return false
}

// Object names a policy object.
type Object struct {
	Kind      string `json:"kind"`
	Namespace string `json:"namespace,omitempty"`
	Name      string `json:"name"`
}

func objectOf(r rbac.Ref) Object { return Object{r.Kind.String(), r.Namespace, r.Name} }

// String returns KIND/NAME or KIND/NAMESPACE/NAME.
func (o Object) String() string {
	if o.Namespace == "" {
		return o.Kind + "/" + o.Name
	}
	return o.Kind + "/" + o.Namespace + "/" + o.Name
}

// Via is how a permission is granted: a binding gives a subject a role.
type Via struct {
	Subject rbacv1.Subject `json:"subject"`
	Binding Object         `json:"binding"`
	Role    Object         `json:"role"`
	// Namespace is where the grant applies; empty for everywhere.
	Namespace string `json:"namespace,omitempty"`
	// Rules are the rules of the role that the answer is about.
	Rules []rbacv1.PolicyRule `json:"rules,omitempty"`
}

func viaOf(g *rbac.Grant, rules []rbacv1.PolicyRule) Via {
	return Via{Subject: g.Subject, Binding: objectOf(g.Binding), Role: objectOf(g.Role), Namespace: g.Binding.Namespace, Rules: rules}
}

// compareVias orders grants by namespace, cluster-wide ones first, then by binding and subject.
func compareVias(a, b Via) int {
	return cmp.Or(
		strings.Compare(a.Namespace, b.Namespace),
		strings.Compare(a.Binding.Name, b.Binding.Name),
		compareSubjects(a.Subject, b.Subject),
	)
}

func compareSubjects(a, b rbacv1.Subject) int {
	return cmp.Or(strings.Compare(a.Kind, b.Kind), strings.Compare(a.Namespace, b.Namespace), strings.Compare(a.Name, b.Name))
}

// sortVias sorts grants, and drops duplicates of a subject that its binding lists twice.
func sortVias(vias []Via, compare func(a, b Via) int) []Via {
	slices.SortFunc(vias, compare)
	return slices.CompactFunc(vias, func(a, b Via) bool {
		return a.Binding == b.Binding && compareSubjects(a.Subject, b.Subject) == 0
	})
}

func sortedKeys(set map[string]bool) []string {
	keys := make([]string, 0, len(set))
	for k := range set {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// request returns the request of the subject with verb and target.
func (s *Subject) request(verb string, t *Target) rbac.Request {
	return rbac.Request{
		User: s.User, Groups: s.Groups, Verb: verb, ResourceRequest: t.Path == "", APIGroup: t.APIGroup,
		Resource: t.Resource, Subresource: t.Subresource, Name: t.Name, Namespace: t.Namespace, Path: t.Path,
	}
}

// allowing returns the rules that allow the request.
func allowing(rules []rbacv1.PolicyRule, req rbac.Request) []rbacv1.PolicyRule {
	var out []rbacv1.PolicyRule
	for i := range rules {
		if rbac.RuleAllows(&rules[i], req) {
			out = append(out, rules[i])
		}
	}
	return out
}

const (
	// Masters is the group that an API server allows everything without RBAC.
	Masters = "system:masters"

	authenticated   = "system:authenticated"
	unauthenticated = "system:unauthenticated"
	anonymous       = "system:anonymous"
	accountsGroup   = "system:serviceaccounts"
	accountPrefix   = account.UserPrefix
	nodesGroup      = "system:nodes"
	nodePrefix      = "system:node:"
)

// Subject is the user of a request: a user name and all groups, including implicit ones. A group alone has no user name.
type Subject struct {
	// Text is the subject as it was written.
	Text   string   `json:"name"`
	User   string   `json:"user,omitempty"`
	Groups []string `json:"groups"`
}

// SubjectForms lists the forms that ParseSubject accepts, for errors and help.
const SubjectForms = "sa:NAMESPACE/NAME, user:NAME, group:NAME or node:NAME"

// ParseSubject parses user:NAME, group:NAME, node:NAME or a service account: sa:NAMESPACE/NAME, NAMESPACE/NAME or
// system:serviceaccount:NAMESPACE:NAME. groups are further groups of the subject.
func ParseSubject(text string, groups ...string) (Subject, error) {
	s := Subject{Text: text, Groups: slices.Clone(groups)}
	kind, name, named := strings.Cut(text, ":")
	switch {
	case isAccount(text):
		name, err := account.Parse(text)
		if err != nil {
			return s, fmt.Errorf("subject %q: %w", text, err)
		}
		s.User = name.User()
	case named && name == "":
		return s, fmt.Errorf("subject %q has no name", text)
	case kind == "user" && named:
		s.User = name
	case kind == "node" && named:
		s.User = nodePrefix + name
		s.Groups = append(s.Groups, nodesGroup)
	case kind == "group" && named:
		s.Groups = append([]string{name}, s.Groups...)
	default:
		return s, fmt.Errorf("subject %q: write %s", text, SubjectForms)
	}
	s.imply()
	return s, nil
}

// isAccount reports whether text has the form of a service account. NAMESPACE:NAME, which kubectl writes, is not accepted
// here, because it could be a misspelled kind of subject.
func isAccount(text string) bool {
	kind, _, named := strings.Cut(text, ":")
	switch {
	case !named:
		return strings.Contains(text, "/")
	case kind == "sa", kind == "serviceaccount":
		return true
	}
	return strings.HasPrefix(text, accountPrefix)
}

// imply adds the implicit groups that an API server gives to a user with this name and these groups.
func (s *Subject) imply() {
	if rest, ok := strings.CutPrefix(s.User, accountPrefix); ok {
		namespace, _, _ := strings.Cut(rest, ":")
		s.Groups = append(s.Groups, accountsGroup, accountsGroup+":"+namespace)
	}
	if slices.ContainsFunc(s.Groups, func(g string) bool { return strings.HasPrefix(g, accountsGroup+":") }) {
		s.Groups = append(s.Groups, accountsGroup)
	}
	if s.User == anonymous {
		s.Groups = append(s.Groups, unauthenticated)
	}
	if !slices.Contains(s.Groups, unauthenticated) {
		s.Groups = append(s.Groups, authenticated)
	}
	seen := map[string]bool{}
	s.Groups = slices.DeleteFunc(s.Groups, func(g string) bool {
		again := seen[g]
		seen[g] = true
		return again
	})
}

// Account returns the namespace and name of the subject; ok is false unless it is a service account.
func (s *Subject) Account() (namespace, name string, ok bool) {
	rest, ok := strings.CutPrefix(s.User, accountPrefix)
	if !ok {
		return "", "", false
	}
	return strings.Cut(rest, ":")
}

// Node returns the name of the node; ok is false unless the subject is a node.
func (s *Subject) Node() (name string, ok bool) {
	if !slices.Contains(s.Groups, nodesGroup) {
		return "", false
	}
	return strings.CutPrefix(s.User, nodePrefix)
}

// isMaster reports whether the API server allows the subject everything without RBAC.
func (s *Subject) isMaster() bool { return slices.Contains(s.Groups, Masters) }

// matches reports whether a subject in a binding is this one or one of its groups. The namespace of an account in the
// binding must be set.
func (s *Subject) matches(bound *rbacv1.Subject) bool {
	switch bound.Kind {
	case rbacv1.UserKind:
		return bound.Name == s.User
	case rbacv1.GroupKind:
		return slices.Contains(s.Groups, bound.Name)
	case rbacv1.ServiceAccountKind:
		return s.User == accountPrefix+bound.Namespace+":"+bound.Name
	}
	return false
}
