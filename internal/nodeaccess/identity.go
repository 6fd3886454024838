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

// Identify tells whether a user is a node, and which. The name is empty for a user that is one and does not say which:
// it may do nothing.
func Identify(user string, groups []string) (node string, ok bool) {
	node, ok = strings.CutPrefix(user, userPrefix)
	if !ok || !slices.Contains(groups, Group) {
		return "", false
	}
	return node, true
}
