package datadir

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"lanyard.dev/internal/hint"
)

// useRuntimeDir separates a test from the instances of this machine. It sets the environment, so such tests are not
// parallel.
func useRuntimeDir(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "run")
	t.Setenv(runtimeDirEnv, dir)
	return dir
}

func TestFindOne(t *testing.T) {
	run := useRuntimeDir(t)
	if _, err := FindOne(); !errors.Is(err, ErrNoneRunning) {
		t.Fatalf("got %v, want ErrNoneRunning", err)
	}
	one, two := filepath.Join(t.TempDir(), "one"), filepath.Join(t.TempDir(), "two")
	first := startChild(t, one, run)
	found, err := FindOne()
	want := Running{DataDir: one, PID: first.Process.Pid, URL: testURL}
	if err != nil || found != want {
		t.Fatalf("found %v, %v; want %v", found, err, want)
	}
	checkMode(t, run, 0o700)

	second := startChild(t, two, run)
	_, err = FindOne()
	if err == nil || !strings.Contains(err.Error(), one) || !strings.Contains(err.Error(), two) {
		t.Fatalf("got %v, want a list of both", err)
	}
	if got := hint.Of(err); !strings.Contains(got, "--kubeconfig "+one) && !strings.Contains(got, "--kubeconfig "+two) {
		t.Errorf("hint %q", got)
	}

	kill(t, second)
	if found, err := FindOne(); err != nil || found.DataDir != one {
		t.Fatalf("after a kill: %v, %v", found, err)
	}
	kill(t, first)
	if _, err := FindOne(); !errors.Is(err, ErrNoneRunning) {
		t.Fatalf("after both: %v", err)
	}
	if left, _ := os.ReadDir(run); len(left) > 0 {
		t.Errorf("stale records are left: %v", left)
	}
}

func TestAnnounceAgainAndClose(t *testing.T) {
	run := useRuntimeDir(t)
	d := open(t, filepath.Join(t.TempDir(), "d"))
	for _, url := range []string{"https://127.0.0.1:1", "https://127.0.0.1:2"} {
		if err := d.Announce(url); err != nil {
			t.Fatal(err)
		}
		if found, err := FindOne(); err != nil || found.URL != url || found.Kubeconfig() != d.Kubeconfig() {
			t.Fatalf("found %v, %v; want %s", found, err, url)
		}
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	if left, _ := os.ReadDir(run); len(left) > 0 {
		t.Errorf("records are left after close: %v", left)
	}
}

func TestJunkRecordsAreIgnored(t *testing.T) {
	run := useRuntimeDir(t)
	d := open(t, filepath.Join(t.TempDir(), "d"))
	if err := d.Announce(testURL); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(d.record.base+recordSuffix, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(run, "junk.json"), []byte("junk"), 0o600); err != nil {
		t.Fatal(err)
	}
	if found, err := FindRunning(); err != nil || len(found) > 0 {
		t.Errorf("found %v, %v", found, err)
	}
}

func TestRuntimeDirOfOthersIsRefused(t *testing.T) {
	run := useRuntimeDir(t)
	if err := os.Mkdir(run, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(run, 0o777); err != nil {
		t.Fatal(err)
	}
	_, err := FindRunning()
	checkError(t, err, run, "may be written by other users (mode 0777)")
	d := open(t, filepath.Join(t.TempDir(), "d"))
	checkError(t, d.Announce(testURL), run, "may be written by other users")
}

func TestRuntimeDirMustNotBeALink(t *testing.T) {
	run := useRuntimeDir(t)
	if err := os.Symlink(t.TempDir(), run); err != nil {
		t.Fatal(err)
	}
	_, err := FindRunning()
	checkError(t, err, run, "is not a directory")
}

func TestRuntimeDirFor(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		uid            int
		override, xdg  string
		system, wanted string
	}{
		"override":   {0, "/o", "/x", "linux", "/o"},
		"root":       {0, "", "/x", "linux", "/run/lanyard"},
		"root mac":   {0, "", "", "darwin", "/t/lanyard-0"},
		"user":       {7, "", "/x", "linux", "/x/lanyard"},
		"no session": {7, "", "", "linux", "/t/lanyard-7"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			getenv := func(key string) string {
				return map[string]string{runtimeDirEnv: test.override, "XDG_RUNTIME_DIR": test.xdg}[key]
			}
			if got := runtimeDirFor(test.uid, getenv, "/t", test.system); got != test.wanted {
				t.Errorf("got %s, want %s", got, test.wanted)
			}
		})
	}
}

func TestIsUp(t *testing.T) {
	t.Parallel()
	for args, want := range map[string]bool{
		"lanyard up":              true,
		"/usr/bin/lanyard up -v1": true,
		"lanyard":                 false,
		"lanyard exec -- x up":    false,
		"lanyards up":             false,
		"up lanyard":              false,
		"":                        false,
	} {
		if got := isUpCommand([]byte(strings.ReplaceAll(args, " ", "\x00") + "\x00")); got != want {
			t.Errorf("%q: %v", args, got)
		}
	}
}

func FuzzIsUp(f *testing.F) {
	f.Add([]byte("lanyard\x00up\x00"))
	f.Fuzz(func(t *testing.T, commandLine []byte) {
		if isUpCommand(commandLine) && !strings.Contains(string(commandLine), "lanyard\x00up\x00") {
			t.Errorf("%q is taken for lanyard up", commandLine)
		}
	})
}

func TestNoneRunningNamesOtherProcesses(t *testing.T) {
	t.Parallel()
	mine := Process{PID: 1, User: "ann", Mine: true}
	root, ben := Process{PID: 2, User: "root"}, Process{PID: 3, User: "ben"}
	tests := map[string]struct {
		others []Process
		root   bool
		want   []string
	}{
		"nothing":   {nil, false, []string{"start one with lanyard up, or name a kubeconfig with --kubeconfig or KUBECONFIG"}},
		"root's":    {[]Process{root}, false, []string{"user root runs lanyard up (process 2), whose kubeconfig you may not read", "lanyard user kubeconfig", "use sudo, or start one with lanyard up"}},
		"another's": {[]Process{ben, root}, false, []string{"user ben runs lanyard up (process 3), whose kubeconfig", "use sudo -u ben, or"}},
		"as root":   {[]Process{ben}, true, []string{"user ben runs lanyard up (process 3): name its kubeconfig"}},
		"mine":      {[]Process{mine}, false, []string{"this user runs lanyard up (process 1), recorded in another directory or not yet", "LANYARD_RUNTIME_DIR"}},
		"many":      {[]Process{ben, ben, root, ben, ben}, false, []string{"user ben runs lanyard up (processes 3, 3, 3), whose kubeconfig"}},
	}
	for name, test := range tests {
		err := noneRunning(test.others, test.root)
		if !errors.Is(err, ErrNoneRunning) || err.Error() != ErrNoneRunning.Error() {
			t.Errorf("%s: %v", name, err)
		}
		for _, want := range test.want {
			if !strings.Contains(hint.Of(err), want) {
				t.Errorf("%s: hint %q lacks %q", name, hint.Of(err), want)
			}
		}
	}
}
