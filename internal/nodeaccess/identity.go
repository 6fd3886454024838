package nodeaccess

import (
	"slices"
	"strings"
)

const (
	// Group is the group of all nodes.
	Group = "system:nodes"

	userPrefix = "system:node:"
)

// User is the user name of a node.
func User(node string) string { return userPrefix + node }

// IsUser tells whether a user name is that of a node, whatever the groups.
func IsUser(name string) bool { return strings.HasPrefix(name, userPrefix) }

// Identify tells whether a user is a node, and which. The name is empty for a user that is one and does not say which:
// it may do nothing.
func Identify(user string, groups []string) (node string, ok bool) {
	node, ok = strings.CutPrefix(user, userPrefix)
	if !ok || !slices.Contains(groups, Group) {
		return "", false
	}
	return node, true
}
