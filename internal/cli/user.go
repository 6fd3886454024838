package cli

import "github.com/spf13/cobra"

const userHelp = `Let people in. A person is a name in a certificate; no server keeps a list of
them. What they may do is for roles and bindings to say.`

func newUser(s streams) *cobra.Command {
	group := newGroup(s, "user", "Make credentials for people", userHelp)
	group.AddCommand(newUserKubeconfig(s))
	return group
}
