package standalone

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	goruntime "runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"

	"lanyard.dev/internal/hint"
)

// TestRemovedFiles removes or moves files of a running authority, which then has to end: it would acknowledge writes to
// files that nothing can open again.
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
						t.Errorf("ended with %v, want an error about the removed files with a hint", err)
					}
				case <-time.After(time.Minute):
					t.Error("the authority still runs")
					a.stop()
					<-ended
				}
			})
		}
	}
}

// TestMissingData checks that a start is refused if the keys exist but the data is missing, until the mark of the data is
// removed too.
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
		t.Errorf("after has-data was removed: %v", err)
	}
}

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
	portTaken := port(t, listen(t))
	_, err := Listen("127.0.0.1", portTaken)
	if err == nil || !errors.Is(err, syscall.EADDRINUSE) {
		t.Fatalf("got %v", err)
	}
	want := fmt.Sprintf("127.0.0.1:%d is taken by another process", portTaken)
	if goruntime.GOOS == "linux" {
		name, err := os.ReadFile("/proc/self/comm")
		if err != nil {
			t.Fatal(err)
		}
		want = fmt.Sprintf("127.0.0.1:%d is taken by %s (process %d)", portTaken, strings.TrimSpace(string(name)), os.Getpid())
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
	err := portTaken("127.0.0.1:6443", "", syscall.EADDRINUSE)
	if err.Error() != "127.0.0.1:6443 is taken by another process" {
		t.Errorf("got %q", err)
	}
}

func TestOtherFailuresNameTheAddress(t *testing.T) {
	t.Parallel()
	_, err := Listen("192.0.2.1", 0) // an address for documentation, RFC 5737
	if err == nil || hint.Of(err) != "" || !strings.HasPrefix(err.Error(), "listen on 192.0.2.1:0: ") {
		t.Errorf("got %v", err)
	}
}

const (
	bigObject = 100_000
	updates   = 450
	// maxGrowth limits the memory for the history of one object: a hundred entries of raft's log, and the events in the watch
	// cache (see historyBytes in package mirror), with a margin. Each of the two alone would exceed it if it kept every update.
	maxGrowth = 42 << 20
)

// measureHeap makes the test binary the process that is measured, in which no other test runs.
const measureHeap = "LANYARD_STANDALONE_TEST_MEASURE_HEAP"

// TestHistoryIsBounded updates one object of 100 kB until its history, kept in two places, would take 90 MB, and checks the
// growth of the live heap.
func TestHistoryIsBounded(t *testing.T) {
	t.Parallel()
	if os.Getenv(measureHeap) != "" {
		t.Skip("this is the measured process")
	}
	child := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestMeasuredHeap$", "-test.v")
	child.Env = append(os.Environ(), measureHeap+"=1")
	out, err := child.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	var before, after int64
	for line := range strings.Lines(string(out)) {
		if _, rest, found := strings.Cut(line, "live heap: "); found {
			if _, err := fmt.Sscanf(rest, "%d before, %d after", &before, &after); err != nil {
				t.Fatal(err)
			}
		}
	}
	if before == 0 || after-before > maxGrowth {
		t.Errorf("the live heap grew from %d to %d MB, by more than %d MB", before>>20, after>>20, maxGrowth>>20)
	}
	t.Logf("live heap: %d MB, then %d MB", before>>20, after>>20)
}

// TestMeasuredHeap is the process that TestHistoryIsBounded measures.
func TestMeasuredHeap(t *testing.T) {
	if os.Getenv(measureHeap) == "" {
		t.Skip("run by TestHistoryIsBounded")
	}
	a, err := Start(t.Context(), Config{DataDir: filepath.Join(t.TempDir(), "data"), BindAddress: "127.0.0.1", UnsafeNoFsync: true, Unannounced: true})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = a.Stop() }()
	config, err := clientcmd.BuildConfigFromFlags("", a.Kubeconfig())
	if err != nil {
		t.Fatal(err)
	}
	config.QPS, config.ContentType = -1, runtime.ContentTypeProtobuf
	client := kubernetes.NewForConfigOrDie(config).CoreV1().ConfigMaps("default")
	object, err := client.Create(t.Context(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "big"}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	before := liveHeap()
	for i := range updates {
		object.Data = map[string]string{"k": strings.Repeat(string(rune('a'+i%26)), bigObject)}
		if object, err = client.Update(context.Background(), object, metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	object = nil
	fmt.Printf("live heap: %d before, %d after\n", before, liveHeap())
}

func liveHeap() uint64 {
	goruntime.GC()
	goruntime.GC()
	var stats goruntime.MemStats
	goruntime.ReadMemStats(&stats)
	return stats.HeapAlloc
}
