package cli

import "github.com/spf13/cobra"

const certificateHelp = `List and revoke the certificates that the server has signed: those of people
and of nodes.`

func newCertificate(s streams) *cobra.Command {
	return newGroup("certificate", "List and revoke certificates of people and nodes", certificateHelp, newCertificateList(s), newCertificateRevoke(s))
}

const certificateListHelp = `List the certificates that the server has signed, that have not expired, and that
are not revoked: whom they authenticate, who requested them, and when they were
last used. The server keeps these records, and no private key.

An argument is the ID of a certificate: its SHA-256 digest. Write "-" to read a
certificate in PEM from standard input.

You need the permission to list issuedcertificates.identity.lanyard.dev.`

const certificateListExamples = `  # The certificates of a person, and the tokens that were requested with them
  lanyard certificate list --user jane --with-children

  # Whose certificate is this?
  lanyard certificate list - < cert.pem`

func newCertificateList(s streams) *cobra.Command {
	return newCredentialList(s, &cobra.Command{
		Use: "list [ID...|-]", Short: "List the certificates that the server has signed",
		Long: certificateListHelp, Example: certificateListExamples,
	}, certificateKind)
}

const certificateRevokeHelp = `Revoke certificates: the server refuses them from now on, although they have not
expired. With several servers, the others refuse them a moment later. Open
watches and sessions of their holders end.

An argument is the ID of a certificate: its SHA-256 digest. Write "-" to read a
certificate in PEM from standard input. Flags select certificates too; each
condition that is given must hold. With --with-children, the command also
revokes all that was requested with the certificates, and with that, and so on.

The command shows what will end, and asks. For a stolen node, use
lanyard node evict: it also keeps the node from joining again.

You need the permission to list and delete issuedcertificates.identity.lanyard.dev.`

const certificateRevokeExamples = `  # A person left: the certificates, and the tokens that were requested with them
  lanyard certificate revoke --user jane --with-children --reason 'jane left'

  # One certificate
  lanyard certificate revoke --yes - < cert.pem`

func newCertificateRevoke(s streams) *cobra.Command {
	return newCredentialRevoke(s, &cobra.Command{
		Use: "revoke [ID...|-]", Short: "Revoke certificates before they expire",
		Long: certificateRevokeHelp, Example: certificateRevokeExamples,
	}, certificateKind)
}
