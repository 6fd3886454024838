package cli

import (
	"context"
	"errors"
	"fmt"

	"filippo.io/age"
	"github.com/spf13/cobra"

	"lanyard.dev/internal/backup"
	"lanyard.dev/internal/datadir"
	"lanyard.dev/internal/hint"
)

const backupHelp = `Write a backup of the authority on this machine into one encrypted file: a
snapshot of its etcd, its CAs, its signing key, and the key that encrypts
secrets. "lanyard restore" makes a data directory from it, on this or another
machine.

The authority may run: it is not disturbed. If it does not run, its data
directory is read.

The file is encrypted by age (https://age-encryption.org). Without a flag, the
command asks for a passphrase. For scripts, encrypt to a recipient: its
identity, which alone opens the file, can then be kept away from this machine.
A file that exists is not replaced.

With "lanyard serve", the data is in an etcd of your own: back that up with
etcdctl, together with the files that the flags of "lanyard serve" name.`

const backupExamples = `  # Encrypt to a passphrase, which the command asks for
  lanyard backup monday.backup

  # In a script, encrypt to a recipient that age-keygen has made
  lanyard backup /mnt/backups/$(date +%F).backup --recipient age1...`

const dataDirDefault = "/var/lib/lanyard for root, else $XDG_DATA_HOME/lanyard"

type backupOptions struct {
	streams
	file            string
	dataDir         string
	recipients      []string
	recipientsFiles []string
	passphraseFile  string
}

func newBackup(s streams) *cobra.Command {
	o := &backupOptions{streams: s}
	cmd := &cobra.Command{
		Use: "backup FILE", Short: "Write the state of an authority into one encrypted file",
		Long: backupHelp, Example: backupExamples,
		RunE: checkAndRun(o.validate, o.run),
	}
	f := cmd.Flags()
	f.StringVar(&o.dataDir, "data-dir", "", "data directory to back up (default: that of the authority on this machine; if none runs, "+dataDirDefault+")")
	f.StringArrayVarP(&o.recipients, "recipient", "r", nil, "recipient of age (age1...) who can open the file; may be repeated")
	f.StringArrayVarP(&o.recipientsFiles, "recipients-file", "R", nil, "file with recipients of age, one a line; may be repeated")
	f.StringVar(&o.passphraseFile, "passphrase-file", "", "file whose first line is the passphrase")
	return cmd
}

func (o *backupOptions) validate(args []string) error {
	if err := expectArgs(args, 1, "the FILE to write"); err != nil {
		return err
	}
	if o.file = args[0]; o.file == "" {
		return errors.New("the name of the file is empty")
	}
	if o.passphraseFile != "" && len(o.recipients)+len(o.recipientsFiles) > 0 {
		return errors.New("--passphrase-file cannot be combined with recipients: age encrypts to one or the other")
	}
	return nil
}

func (o *backupOptions) run(parent context.Context) error {
	ctx, stop := untilSignal(parent)
	defer stop()
	dir, err := o.dir()
	if err != nil {
		return err
	}
	recipients, err := o.encryptTo(ctx)
	if err != nil {
		return err
	}
	manifest, err := backup.Write(ctx, dir, o.file, recipients)
	if err != nil {
		return err
	}
	return write(o.out, fmt.Sprintf("backed up %s to %s at revision %d\n", dir, o.file, manifest.Etcd.Revision))
}

// dir returns the data directory that a flag names, or that of the authority that this user runs, or the default one.
func (o *backupOptions) dir() (string, error) {
	if o.dataDir != "" {
		return o.dataDir, nil
	}
	running, err := datadir.FindOne()
	switch {
	case err == nil:
		return running.DataDir, nil
	case errors.Is(err, datadir.ErrNoneRunning):
		return datadir.Default()
	}
	return "", hint.New(err, "choose one with --data-dir")
}

func (o *backupOptions) encryptTo(ctx context.Context) ([]age.Recipient, error) {
	if len(o.recipients)+len(o.recipientsFiles) > 0 {
		return backup.ToRecipients(o.recipients, o.recipientsFiles)
	}
	passphrase, err := "", error(nil)
	if o.passphraseFile != "" {
		passphrase, err = backup.ReadPassphrase(o.passphraseFile)
	} else {
		passphrase, err = o.newPassphrase(ctx)
	}
	if err != nil {
		return nil, err
	}
	return backup.ToPassphrase(passphrase)
}
