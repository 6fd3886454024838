package cli

import "github.com/spf13/cobra"

const tokenListHelp = `List the tokens that the server has issued, that have not expired, and that are
not revoked: whose they are, what they are bound to, who requested them, and
when they were last used. The server keeps these records, and no token.

An argument is the ID of a token. Write "-" to read a whole token from standard
input, as when it was found in a log: the list shows whose it is. The token is
never printed.

LAST USED is the last use that the server has seen. It does not see how other
services use a token that they verify with the public keys.

You need the permission to list issuedtokens.identity.lanyard.dev, which the
admins of a namespace have.`

const tokenListExamples = `  # All tokens of an account, with details
  lanyard token list --account shop/web -o wide

  # Tokens of all namespaces that nobody has used for a day
  lanyard token list -A --unused-for 24h

  # Whose token is this, and what was requested with it?
  lanyard token list --with-children - < token.txt`

func newTokenList(s streams) *cobra.Command {
	return newCredentialList(s, &cobra.Command{
		Use: "list [ID...|-]", Short: "List the tokens that the server has issued",
		Long: tokenListHelp, Example: tokenListExamples,
	}, tokenKind)
}

const tokenRevokeHelp = `Revoke tokens: the server refuses them from now on, although they have not
expired. With several servers, the others refuse them a moment later.

An argument is the ID of a token. Write "-" to read a whole token from standard
input, as when it was found in a log. Flags select tokens too; each condition
that is given must hold. With --with-children, the command also revokes all
that was requested with the tokens, and with that, and so on.

The command shows what will end, and asks. A workload whose token is revoked
gets a new one if it still exists: delete its pod or its service account to
keep it out. Services that verify tokens with the public keys alone do not
learn of the revocation.

You need the permission to list and delete issuedtokens.identity.lanyard.dev,
which the admins of a namespace have.`

const tokenRevokeExamples = `  # A token that was found in a log, and all that was requested with it
  lanyard token revoke --with-children --yes --reason 'found in a build log' - < token.txt

  # All tokens of an account that were issued before the incident
  lanyard token revoke --account shop/web --issued-before 2026-03-01T12:00:00Z

  # All tokens that a person requested, in all namespaces
  lanyard token revoke -A --minter jane --reason 'jane left'`

func newTokenRevoke(s streams) *cobra.Command {
	return newCredentialRevoke(s, &cobra.Command{
		Use: "revoke [ID...|-]", Short: "Revoke tokens before they expire",
		Long: tokenRevokeHelp, Example: tokenRevokeExamples,
	}, tokenKind)
}
