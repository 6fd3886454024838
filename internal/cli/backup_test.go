package cli

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"lanyard.dev/internal/backup"
)

func TestBackupUsage(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		args []string
		want string
	}{
		"no file":            {[]string{"backup"}, "lanyard: expected the FILE to write\nhint: see lanyard backup --help\n"},
		"two files":          {[]string{"backup", "a", "b"}, "lanyard: unexpected argument \"b\"\nhint: see lanyard backup --help\n"},
		"empty file":         {[]string{"backup", ""}, "lanyard: the name of the file is empty\nhint: see lanyard backup --help\n"},
		"both encryptions":   {[]string{"backup", "a", "-r", "age1", "--passphrase-file", "p"}, "lanyard: --passphrase-file cannot be combined with recipients: age encrypts to one or the other\nhint: see lanyard backup --help\n"},
		"no file to restore": {[]string{"restore"}, "lanyard: expected the FILE to restore\nhint: see lanyard restore --help\n"},
	} {
		if got := run("", test.args...); got.code != exitUsage || got.errOut != test.want || got.out != "" {
			t.Errorf("%s: %+v", name, got)
		}
	}
}

func TestRestoreReport(t *testing.T) {
	t.Parallel()
	done := &backup.Restored{
		Manifest: backup.Manifest{Lanyard: "v1.2.3\x1b[2J", Created: time.Unix(1_900_000_000, 0).UTC(), Etcd: backup.Etcd{Revision: 1234}},
		DataDir:  "/var/lib/lanyard", Objects: 57, Revision: 1_000_001_234, BootstrapTokens: 2,
	}
	checkGolden(t, filepath.Join("restore", "refused.txt"), (&restoreOptions{}).report(done))
	checkGolden(t, filepath.Join("restore", "accepted.txt"), (&restoreOptions{acceptEarlier: true}).report(done))
}

// TestSecretsStayOutOfErrors names files of the wrong kind.
func TestSecretsStayOutOfErrors(t *testing.T) {
	t.Parallel()
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte("AGE-SECRET-KEY-1YL7NLMTEA40\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{
		{"backup", "a", "--data-dir", t.TempDir(), "-R", secret}, {"backup", "a", "--data-dir", t.TempDir(), "-r", "AGE-SECRET-KEY-1YL7NLMTEA40"},
		{"restore", "a", "-i", secret, "--data-dir", t.TempDir()},
	} {
		got := run("", args...)
		if got.code != exitFailure || strings.Contains(got.errOut+got.out, "YL7NL") || !strings.Contains(got.errOut, "hint: ") {
			t.Errorf("%q: %+v", args[:1], got)
		}
	}
}

// TestPassphraseWithoutATerminal must not wait for one. The test may run in a terminal, which it must not use.
func TestPassphraseWithoutATerminal(t *testing.T) {
	t.Parallel()
	if terminal, end, err := (streams{in: strings.NewReader("word\n")}).terminal(); err == nil {
		end()
		t.Skipf("this process has the terminal %s", terminal.Name())
	}
	_, err := (streams{in: strings.NewReader("word\n"), err: os.Stderr}).newPassphrase(context.Background())
	if !errors.Is(err, errNoTerminal) {
		t.Errorf("got %v", err)
	}
}
