package main

import (
	"bufio"
	"context"
	"encoding/base64"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
)

// releaseEnv names the directory of a release for this machine. CI sets it.
const releaseEnv = "LANYARD_TEST_RELEASE"

// TestReleaseInAnEmptyRoot unpacks the archive, starts the program where it finds no other file, and asks it for a token.
func TestReleaseInAnEmptyRoot(t *testing.T) {
	t.Parallel()
	dir := os.Getenv(releaseEnv)
	if dir == "" {
		t.Skipf("%s names no directory of a release", releaseEnv)
	}
	if os.Geteuid() != 0 {
		t.Fatal("only root can change the root directory of a process")
	}
	root := t.TempDir()
	if err := os.WriteFile(filepath.Join(root, "lanyard"), released(t, dir), 0o755); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	startIn(t, root)
	if got := output(t, ctx, root, "version"); !strings.HasPrefix(got, "lanyard v") || !strings.Contains(got, ", clean\n") {
		t.Errorf("version %q", got)
	}
	text := strings.TrimSpace(output(t, ctx, root, "kubectl", "create", "token", "default", "--kubeconfig=/data/admin.kubeconfig"))
	parts := strings.Split(text, ".")
	if len(parts) != 3 {
		t.Fatalf("the token has %d parts", len(parts))
	}
	claims, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil || !strings.Contains(string(claims), `"sub":"system:serviceaccount:default:default"`) {
		t.Errorf("the token claims %s: %v", claims, err)
	}
}

// released returns the program in the archive.
func released(t *testing.T, dir string) []byte {
	t.Helper()
	archives, err := filepath.Glob(filepath.Join(dir, "lanyard_*_linux_"+runtime.GOARCH+".tar.gz"))
	if err != nil || len(archives) != 1 {
		t.Fatalf("archives %q: %v", archives, err)
	}
	archive, err := os.ReadFile(archives[0])
	if err != nil {
		t.Fatal(err)
	}
	name := strings.TrimSuffix(filepath.Base(archives[0]), ".tar.gz") + "/lanyard"
	return untar(t, archive)[name].content
}

func inRoot(ctx context.Context, root string, args ...string) *exec.Cmd {
	command := exec.CommandContext(ctx, "/lanyard", args...)
	command.Dir, command.Env = "/", []string{}
	command.SysProcAttr = &syscall.SysProcAttr{Chroot: root, Pdeathsig: syscall.SIGKILL}
	return command
}

func output(t *testing.T, ctx context.Context, root string, args ...string) string {
	t.Helper()
	var words strings.Builder
	command := inRoot(ctx, root, args...)
	command.Stderr = &words
	out, err := command.Output()
	if err != nil {
		t.Fatalf("%q: %v\n%s", args, err, words.String())
	}
	return string(out)
}

// startIn returns when the authority is up. The end of the test ends it in order.
func startIn(t *testing.T, root string) {
	t.Helper()
	command := inRoot(context.Background(), root, "up", "--data-dir", "/data", "--secure-port", "0", "--container-runtime-endpoint", "none")
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	command.Stdout, command.Stderr = w, w
	// Pdeathsig follows the thread that starts the process, which must not end before the process.
	runtime.LockOSThread()
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	_ = w.Close()
	limit := time.AfterFunc(2*time.Minute, func() { _ = command.Process.Kill() })
	t.Cleanup(func() {
		defer limit.Stop()
		_ = command.Process.Signal(syscall.SIGTERM)
		if err := command.Wait(); err != nil {
			t.Errorf("the end of the authority: %v", err)
		}
		_ = r.Close()
	})
	var printed strings.Builder
	for lines := bufio.NewScanner(r); lines.Scan(); {
		printed.WriteString(lines.Text() + "\n")
		if strings.HasPrefix(lines.Text(), "lanyard is up at ") {
			go func() {
				for lines.Scan() {
				}
			}()
			return
		}
	}
	t.Fatalf("the authority did not start:\n%s", printed.String())
}
