package nodeaccess

import (
	"slices"
	"strings"
)

const (
	// Group is the group of every node.
	Group = "system:nodes"

	userPrefix = "system:node:"
)

// User returns the user name of a node.
func User(node string) string { return userPrefix + node }

// IsUser reports whether a user name is that of a node. It does not consider groups.
func IsUser(name string) bool { return strings.HasPrefix(name, userPrefix) }

// Identify returns the node that a user is; false if the user is no node. The name may be empty: such a node may do
// nothing.
func Identify(user string, groups []string) (node string, ok bool) {
	node, ok = strings.CutPrefix(user, userPrefix)
	if !ok || !slices.Contains(groups, Group) {
		return "", false
	}
	return node, true
}
