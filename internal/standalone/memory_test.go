package standalone

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	goruntime "runtime"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
)

const (
	bigObject = 100_000
	updates   = 450
	// maxGrowth is what the history of one object may take: a hundred entries of raft's log, and the events that the watch
	// cache keeps (see historyBytes in package mirror), with some room. Either of the two alone would take more if it kept
	// every update.
	maxGrowth = 42 << 20
)

// measureHeap has the test binary be the process that is measured: no other test is in it.
const measureHeap = "LANYARD_STANDALONE_TEST_MEASURE_HEAP"

// TestHistoryIsBounded updates one object of 100 kB until its history, kept in two places, would take 90 MB, and bounds by
// how much the live heap grows.
func TestHistoryIsBounded(t *testing.T) {
	t.Parallel()
	if os.Getenv(measureHeap) != "" {
		t.Skip("this is the process that is measured")
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

// TestMeasuredHeap is the process of TestHistoryIsBounded.
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
