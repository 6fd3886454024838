package access

import (
	"fmt"
	"slices"
	"strings"

	rbacv1 "k8s.io/api/rbac/v1"

	"lanyard.dev/internal/account"
)

const (
	// Masters is the group that an API server allows everything without
	// asking the policy.
	Masters = "system:masters"

	authenticated   = "system:authenticated"
	unauthenticated = "system:unauthenticated"
	anonymous       = "system:anonymous"
	accountsGroup   = "system:serviceaccounts"
	accountPrefix   = account.UserPrefix
	nodesGroup      = "system:nodes"
	nodePrefix      = "system:node:"
)

// Subject is someone who asks: a user name and all groups, implicit ones
// included. A group asked about by itself has no user name.
type Subject struct {
	// Text is the subject as it was asked for.
	Text   string   `json:"name"`
	User   string   `json:"user,omitempty"`
	Groups []string `json:"groups"`
}

// SubjectForms lists the spellings that ParseSubject reads, for errors and help.
const SubjectForms = "sa:NAMESPACE/NAME, user:NAME, group:NAME or node:NAME"

// ParseSubject reads user:NAME, group:NAME, node:NAME or a service account, which is written sa:NAMESPACE/NAME,
// NAMESPACE/NAME or system:serviceaccount:NAMESPACE:NAME. groups are those the subject has besides the implicit ones.
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

// isAccount reports whether text is meant as a service account. NAMESPACE:NAME, which kubectl writes, is not one here: it
// could as well be a kind of subject, misspelt.
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

// imply adds the groups that an API server gives whoever has this name and
// these groups.
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

// Account returns the service account that the subject is; ok is false for anyone else.
func (s *Subject) Account() (namespace, name string, ok bool) {
	rest, ok := strings.CutPrefix(s.User, accountPrefix)
	if !ok {
		return "", "", false
	}
	return strings.Cut(rest, ":")
}

// Node returns the name of the node that the subject is; ok is false for anyone else.
func (s *Subject) Node() (name string, ok bool) {
	if !slices.Contains(s.Groups, nodesGroup) {
		return "", false
	}
	return strings.CutPrefix(s.User, nodePrefix)
}

// isMaster tells whether the policy is never asked about the subject.
func (s *Subject) isMaster() bool { return slices.Contains(s.Groups, Masters) }

// matches tells whether a binding's subject means this one. Namespaces of
// accounts have been filled in.
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
