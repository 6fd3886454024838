package standalone

import (
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"lanyard.dev/internal/hint"
)

func port(t *testing.T, l net.Listener) int {
	t.Helper()
	return l.Addr().(*net.TCPAddr).Port
}

func listen(t *testing.T) net.Listener {
	t.Helper()
	l, err := Listen("127.0.0.1", 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

func TestTakenPortNamesItsHolder(t *testing.T) {
	t.Parallel()
	taken := port(t, listen(t))
	_, err := Listen("127.0.0.1", taken)
	if err == nil || !errors.Is(err, syscall.EADDRINUSE) {
		t.Fatalf("got %v", err)
	}
	want := fmt.Sprintf("127.0.0.1:%d is taken by another process", taken)
	if runtime.GOOS == "linux" {
		name, err := os.ReadFile("/proc/self/comm")
		if err != nil {
			t.Fatal(err)
		}
		want = fmt.Sprintf("127.0.0.1:%d is taken by %s (process %d)", taken, strings.TrimSpace(string(name)), os.Getpid())
	}
	if err.Error() != want {
		t.Errorf("got %q, want %q", err, want)
	}
	if !strings.Contains(hint.Of(err), "--secure-port") {
		t.Errorf("hint %q", hint.Of(err))
	}
}

func TestUnknownHolder(t *testing.T) {
	t.Parallel()
	err := taken("127.0.0.1:6443", "", syscall.EADDRINUSE)
	if err.Error() != "127.0.0.1:6443 is taken by another process" {
		t.Errorf("got %q", err)
	}
}

func TestOtherFailuresNameTheAddress(t *testing.T) {
	t.Parallel()
	_, err := Listen("192.0.2.1", 0) // an address of no machine, RFC 5737
	if err == nil || hint.Of(err) != "" || !strings.HasPrefix(err.Error(), "listen on 192.0.2.1:0: ") {
		t.Errorf("got %v", err)
	}
}
