package standalone

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"lanyard.dev/internal/hint"
)

// TestRemovedFiles has an authority end whose files are taken away: it would acknowledge writes to files that nobody can
// open again.
func TestRemovedFiles(t *testing.T) {
	t.Parallel()
	for name, files := range map[string]string{"the directory": "", "etcd": "etcd", "the database": "etcd/member/snap/db", "the log": "etcd/member/wal"} {
		for verb, remove := range map[string]func(string) error{
			"removed": os.RemoveAll,
			"moved":   func(path string) error { return os.Rename(path, path+".away") },
		} {
			t.Run(name+" "+verb, func(t *testing.T) {
				t.Parallel()
				a, err := Start(t.Context(), Config{DataDir: filepath.Join(t.TempDir(), "data"), BindAddress: "127.0.0.1", UnsafeNoFsync: true, Unannounced: true})
				if err != nil {
					t.Fatal(err)
				}
				if err := remove(filepath.Join(a.DataDir(), filepath.FromSlash(files))); err != nil {
					t.Fatal(err)
				}
				ended := make(chan error, 1)
				go func() { ended <- a.Wait() }()
				select {
				case err := <-ended:
					if err == nil || !strings.Contains(err.Error(), "removed or replaced while it was in use") || hint.Of(err) == "" {
						t.Errorf("ended with %v, want what is gone, and a hint", err)
					}
				case <-time.After(time.Minute):
					t.Error("the authority goes on")
					a.stop()
					<-ended
				}
			})
		}
	}
}

// TestMissingData has a start refused where the keys are and the data is not, until it is said that this is meant.
func TestMissingData(t *testing.T) {
	t.Parallel()
	c := Config{DataDir: filepath.Join(t.TempDir(), "data"), BindAddress: "127.0.0.1", UnsafeNoFsync: true, Unannounced: true}
	run := func() error {
		a, err := Start(t.Context(), c)
		if err != nil {
			return err
		}
		return a.Stop()
	}
	if err := run(); err != nil {
		t.Fatal(err)
	}
	for _, files := range []string{"etcd/member/wal", "etcd/member", "etcd"} {
		if err := os.RemoveAll(filepath.Join(c.DataDir, filepath.FromSlash(files))); err != nil {
			t.Fatal(err)
		}
		err := run()
		if err == nil || !strings.Contains(err.Error(), "missing") || hint.Of(err) == "" {
			t.Fatalf("without %s: %v, want an error with a hint", files, err)
		}
		if files != "etcd/member/wal" && (strings.Contains(err.Error(), "etcd in ") || !strings.Contains(hint.Of(err), "remove "+filepath.Join(c.DataDir, "has-data")+" too")) {
			t.Errorf("without %s: %v, hint %q", files, err, hint.Of(err))
		}
	}
	if entries, err := os.ReadDir(filepath.Join(c.DataDir, "etcd")); err == nil && len(entries) > 1 {
		t.Errorf("refused starts left %v", entries)
	}
	if err := os.Remove(filepath.Join(c.DataDir, "has-data")); err != nil {
		t.Fatal(err)
	}
	if err := run(); err != nil {
		t.Errorf("where that is meant: %v", err)
	}
}
