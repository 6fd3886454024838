package cli

import "github.com/spf13/cobra"

const nodeHelp = `Let machines become nodes, and refuse those that were stolen. A node runs pods
and gets tokens for their service accounts, and for no others.`

func newNode(s streams) *cobra.Command {
	group := newGroup(s, "node", "Let machines become nodes, or refuse them", nodeHelp)
	group.AddCommand(newNodeToken(s), newNodeEvict(s))
	return group
}

const nodeTokenHelp = `Manage bootstrap tokens: the credential with which a machine that has none yet
asks for a certificate as a node. It is good for nothing else, and soon ends.`

func newNodeToken(s streams) *cobra.Command {
	group := newGroup(s, "token", "Manage the tokens that machines join with", nodeTokenHelp)
	group.AddCommand(newNodeTokenCreate(s), newNodeTokenList(s), newNodeTokenDelete(s))
	return group
}
