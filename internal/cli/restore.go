package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/utils/clock"

	"lanyard.dev/internal/backup"
	"lanyard.dev/internal/datadir"
)

const restoreHelp = `Make a data directory from a file of "lanyard backup". "lanyard up" then starts
with it. The directory must be absent or empty, and the whole file is checked
before anything gets its name there.

Everything is as it was at the time of the backup. A backup cannot know what was
revoked after it, so no token from before the restore is accepted: the restored
authority has new signing keys, and bootstrap tokens are removed. The agents of
nodes and "lanyard exec" get new tokens by themselves. Certificates of people and
nodes, and the CA, stay as they were: the command says what to revoke again.

--accept-earlier-tokens keeps the signing keys and the bootstrap tokens. Tokens of
accounts, pods and secrets that were deleted after the backup are then accepted
again until they expire.`

const restoreExamples = `  # Ask for the passphrase, and make the default data directory
  lanyard restore monday.backup

  # Open with the identity of a recipient, and make another directory
  lanyard restore monday.backup --identity key.txt --data-dir /srv/lanyard`

type restoreOptions struct {
	streams
	file           string
	dataDir        string
	identities     []string
	passphraseFile string
	acceptEarlier  bool
}

func newRestore(s streams) *cobra.Command {
	o := &restoreOptions{streams: s}
	cmd := &cobra.Command{
		Use: "restore FILE", Short: "Make a data directory from a backup",
		Long: restoreHelp, Example: restoreExamples,
		RunE: checkAndRun(o.validate, o.run),
	}
	f := cmd.Flags()
	f.StringVar(&o.dataDir, "data-dir", "", "data directory to make (default: "+dataDirDefault+")")
	f.StringArrayVarP(&o.identities, "identity", "i", nil, "file with the identity of a recipient, as age-keygen writes it; may be repeated")
	f.StringVar(&o.passphraseFile, "passphrase-file", "", "file whose first line is the passphrase")
	f.BoolVar(&o.acceptEarlier, "accept-earlier-tokens", false, "accept tokens that were issued before the restore, although some may have been revoked after the backup")
	return cmd
}

func (o *restoreOptions) validate(args []string) error {
	if err := expectArgs(args, 1, "the FILE to restore"); err != nil {
		return err
	}
	if o.file = args[0]; o.file == "" {
		return errors.New("the name of the file is empty")
	}
	return nil
}

func (o *restoreOptions) run(parent context.Context) (err error) {
	ctx, stop := untilSignal(parent)
	defer stop()
	if o.dataDir == "" {
		if o.dataDir, err = datadir.Default(); err != nil {
			return err
		}
	}
	identities, err := backup.ReadIdentities(o.identities)
	if err != nil {
		return err
	}
	done, err := backup.Restore(ctx, backup.Options{
		File: o.file, Key: backup.Key{Identities: identities, Passphrase: func() (string, error) { return o.passphrase(ctx) }},
		DataDir: o.dataDir, AcceptEarlierTokens: o.acceptEarlier, Clock: clock.RealClock{},
	})
	if err != nil {
		return err
	}
	return write(o.out, o.report(&done))
}

func (o *restoreOptions) passphrase(ctx context.Context) (string, error) {
	if o.passphraseFile != "" {
		return backup.ReadPassphrase(o.passphraseFile)
	}
	return o.askPassphrase(ctx, "Passphrase of the backup: ")
}

const refusedText = `
Refused from now on:
  all tokens of service accounts that were issued before, because the authority
    has new signing keys. The agents of nodes and lanyard exec get new tokens by
    themselves; request all others again
  all bootstrap tokens, because they were removed (%d)
`

const acceptedText = `
Accepted again until they expire:
  tokens that were issued before the backup, even if the token was revoked after
    the backup, or its account, pod, secret or node was deleted after it
  bootstrap tokens that were deleted after the backup
`

const asBeforeText = `
As at the time of the backup, whatever was changed, deleted or revoked after it:
  service accounts, roles and bindings, secrets, pods, nodes and all other objects
  certificates of people and nodes: one that was revoked after the backup, or whose
    node was evicted after it, is accepted again

Next:
  start the authority at the address that it had: lanyard up --data-dir %s
  revoke and evict again what was revoked and evicted after the backup:
    lanyard certificate revoke, lanyard node evict
  delete again what was deleted after the backup. The audit log of the former
    authority names it; docs/operations.md has the command
`

// report says what a restore has done.
func (o *restoreOptions) report(done *backup.Restored) string {
	var text strings.Builder
	m := &done.Manifest
	fmt.Fprintf(&text, "restored %s\n", done.DataDir)
	fmt.Fprintf(&text, "  backup     of %s, by lanyard %s, at revision %d\n", m.Created.Format(time.RFC3339), printable([]byte(m.Lanyard)), m.Etcd.Revision)
	fmt.Fprintf(&text, "  store      %s, now at revision %d\n", plural(done.Objects, "object"), done.Revision)
	if o.acceptEarlier {
		text.WriteString(acceptedText)
	} else {
		fmt.Fprintf(&text, refusedText, done.BootstrapTokens)
	}
	fmt.Fprintf(&text, asBeforeText, done.DataDir)
	return text.String()
}
