// Promise: a full disk ends the program in order, and a second signal ends it at once.

package systemtest

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/clientcmd"

	"lanyard.dev/internal/apiserver/auditlog"
	"lanyard.dev/internal/standalone"
)

// TestFullDisk gives the store of a busy authority no more space. A limit on the size of files has the effect of a full
// disk, and needs neither root nor a mount. The process ends with an error that names the cause, and every acknowledged
// write is there after the next start.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	h := newUpServer(t)
	p := h.start(t)
	config := h.config(t)
	before := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "before"}}
	if _, err := clientFor(t, config).CoreV1().ConfigMaps("default").Create(t.Context(), before, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	database, err := os.Stat(filepath.Join(h.dir, "etcd", "member", "snap", "db"))
	if err != nil {
		t.Fatal(err)
	}
	room := unix.Rlimit{Cur: uint64(database.Size()), Max: uint64(database.Size())}
	if err := unix.Prlimit(p.process.Process.Pid, unix.RLIMIT_FSIZE, &room, nil); err != nil {
		t.Fatal(err)
	}

	// The end of the process has to wait for these requests and watches.
	writing, stop := context.WithTimeout(t.Context(), waitLimit)
	defer stop()
	var writers sync.WaitGroup
	for range 8 {
		client := clientFor(t, config)
		writers.Go(func() {
			if _, err := client.CoreV1().ConfigMaps("default").Watch(writing, metav1.ListOptions{}); err != nil {
				return
			}
			for writing.Err() == nil {
				object := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{GenerateName: "c-"}, Data: map[string]string{"k": strings.Repeat("x", 50_000)}}
				if _, err := client.CoreV1().ConfigMaps("default").Create(writing, object, metav1.CreateOptions{}); err != nil && !apierrors.IsInternalError(err) {
					return
				}
			}
		})
	}
	select {
	case err = <-p.ended:
	case <-time.After(waitLimit):
		t.Fatal("the process still runs although the disk is full")
	}
	stop()
	writers.Wait()
	if exit := (*exec.ExitError)(nil); !errors.As(err, &exit) || exit.ExitCode() != 1 {
		t.Errorf("ended with %v, want exit code 1", err)
	}
	text, err := os.ReadFile(p.log)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"lanyard: etcd in ", "file too large", "hint: free some space", "no acknowledged write is lost"} {
		if !strings.Contains(string(text), want) {
			t.Errorf("the log lacks %q", want)
		}
	}
	if t.Failed() {
		t.Logf("%s", text)
	}

	h.starts = 0
	h.log += ".again"
	again := h.start(t)
	if _, err := clientFor(t, config).CoreV1().ConfigMaps("default").Get(t.Context(), "before", metav1.GetOptions{}); err != nil {
		t.Errorf("after a start without the limit: %v", err)
	}
	if _, err := again.end(t, syscall.SIGTERM); err != nil {
		t.Errorf("SIGTERM: %v", err)
	}
}

// init lets a write beyond the limit on the size of files fail, as on a full disk. By default such a write ends the process.
func init() {
	prepareProgram = func() { signal.Ignore(syscall.SIGXFSZ) }
}

// TestFullAuditDisk lets every write to the audit log fail.
func TestFullAuditDisk(t *testing.T) {
	t.Parallel()
	for mode, refused := range map[string]bool{auditlog.Blocking: false, auditlog.Batch: false, auditlog.BlockingStrict: true} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			a := startOnFullAuditDisk(t, mode)
			config, err := clientcmd.BuildConfigFromFlags("", a.Kubeconfig())
			if err != nil {
				t.Fatal(err)
			}
			_, err = clientFor(t, config).CoreV1().ConfigMaps("default").Create(t.Context(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "c"}}, metav1.CreateOptions{})
			if apierrors.IsInternalError(err) != refused || err != nil && !refused {
				t.Errorf("create: %v, want it refused: %v", err, refused)
			}
			anyone := bearer(t, config, "")
			eventually(t, "the audit log fails /readyz", func(context.Context) bool {
				got := anyone.get(t, "/readyz?verbose")
				return got.code == http.StatusInternalServerError && strings.Contains(string(got.body), "[-]audit-log failed")
			})
			if got := anyone.get(t, "/livez"); got.code != http.StatusOK {
				t.Errorf("/livez: %s, want 200", got)
			}
			if err := a.Stop(); err != nil {
				t.Errorf("stop: %v", err)
			}
		})
	}
}

// startOnFullAuditDisk starts an authority whose audit log is /dev/full.
func startOnFullAuditDisk(t *testing.T, mode string) *standalone.Authority {
	t.Helper()
	c := standalone.Config{DataDir: filepath.Join(t.TempDir(), "data"), BindAddress: "127.0.0.1", UnsafeNoFsync: true, Unannounced: true, AuditLogMode: mode}
	for _, dir := range []string{c.DataDir, filepath.Join(c.DataDir, "audit")} {
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(c.DataDir, "lock"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/dev/full", filepath.Join(c.DataDir, "audit", "audit.log")); err != nil {
		t.Fatal(err)
	}
	a, err := standalone.Start(context.WithoutCancel(t.Context()), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = a.Stop() })
	return a
}

// TestSecondSignal signals a process twice while a request is in flight. The second signal ends it at once.
func TestSecondSignal(t *testing.T) {
	t.Parallel()
	h := newUpServer(t)
	p := h.start(t)
	address := net.JoinHostPort("127.0.0.1", fmt.Sprint(h.port))
	admin, err := tls.LoadX509KeyPair(filepath.Join(h.dir, "admin.crt"), filepath.Join(h.dir, "admin.key"))
	if err != nil {
		t.Fatal(err)
	}
	slow, err := tls.Dial("tcp", address, &tls.Config{InsecureSkipVerify: true, Certificates: []tls.Certificate{admin}})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = slow.Close() }()
	if _, err := fmt.Fprint(slow, "POST /api/v1/namespaces/default/configmaps HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 9\r\nExpect: 100-continue\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	// The server sends 100 Continue when the handler reads the body, so the request is in flight.
	if line, err := bufio.NewReader(slow).ReadString('\n'); err != nil || !strings.Contains(line, "100 Continue") {
		t.Fatalf("got %q, %v", line, err)
	}
	if err := p.process.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the port is closed", func(context.Context) bool {
		c, err := net.Dial("tcp", address)
		if err == nil {
			_ = c.Close()
		}
		return err != nil
	})
	_, err = p.end(t, syscall.SIGINT)
	exit := (*exec.ExitError)(nil)
	if !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGINT {
		t.Errorf("ended with %v, want the second signal", err)
	}
}
