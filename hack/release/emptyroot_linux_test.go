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

// releaseEnv is the variable with the directory of a release for this machine. CI sets it.
const releaseEnv = "LANYARD_TEST_RELEASE"

// TestReleaseInAnEmptyRoot unpacks the archive, starts the program in a root directory without other files, and requests a
// token from it.
func TestReleaseInAnEmptyRoot(t *testing.T) {
	t.Parallel()
	dir := os.Getenv(releaseEnv)
	if dir == "" {
		t.Skipf("%s is not set", releaseEnv)
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
	var messages strings.Builder
	command := inRoot(ctx, root, args...)
	command.Stderr = &messages
	out, err := command.Output()
	if err != nil {
		t.Fatalf("%q: %v\n%s", args, err, messages.String())
	}
	return string(out)
}

// startIn starts an authority and returns when it is up. The authority is stopped at the end of the test.
func startIn(t *testing.T, root string) {
	t.Helper()
	command := inRoot(context.Background(), root, "up", "--data-dir", "/data", "--secure-port", "0", "--container-runtime-endpoint", "none")
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	command.Stdout, command.Stderr = w, w
	// The process gets Pdeathsig when the thread that started it ends, so the thread must not end before.
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
