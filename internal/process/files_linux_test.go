package process

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"lanyard.dev/internal/runas"
)

func TestRemoveAbandoned(t *testing.T) {
	t.Parallel()
	base := t.TempDir()
	running, err := tryDirectory(base, runas.Self())
	if err != nil {
		t.Fatal(err)
	}
	old := time.Now().Add(-2 * unlockedAge)
	for name, files := range map[string][]string{
		directoryPrefix + "dead": {lockName, "x"}, directoryPrefix + "old": {"x"}, directoryPrefix + "new": {"x"}, "other": {lockName},
	} {
		dir := filepath.Join(base, name)
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			if err := os.WriteFile(filepath.Join(dir, file), nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := os.Chtimes(filepath.Join(base, directoryPrefix+"old"), old, old); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(filepath.Join(base, "other"), filepath.Join(base, directoryPrefix+"link")); err != nil {
		t.Fatal(err)
	}
	removeAbandoned(base)
	for name, want := range map[string]bool{
		filepath.Base(running.path): true, directoryPrefix + "dead": false, directoryPrefix + "old": false, directoryPrefix + "new": true,
		"other": true, "other/lock": true, directoryPrefix + "link": true,
	} {
		if _, err := os.Lstat(filepath.Join(base, name)); (err == nil) != want {
			t.Errorf("%s is there: %v, want %v", name, err == nil, want)
		}
	}
	if err := running.remove(); err != nil {
		t.Error(err)
	}
}
