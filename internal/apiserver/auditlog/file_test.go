package auditlog

import (
	"bytes"
	"encoding/json"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/types"
	auditinternal "k8s.io/apiserver/pkg/apis/audit"
	auditv1 "k8s.io/apiserver/pkg/apis/audit/v1"
	"k8s.io/apiserver/pkg/audit"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	pluginlog "k8s.io/apiserver/plugin/pkg/audit/log"
)

// disk is a file on a disk with room for a number of bytes.
type disk struct {
	mu   sync.Mutex
	text bytes.Buffer
	room int
	hang chan struct{} // if not nil, a write waits until it is closed
}

func (d *disk) Write(p []byte) (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.hang != nil {
		<-d.hang
	}
	n := min(len(p), d.room)
	d.room -= n
	d.text.Write(p[:n])
	if n < len(p) {
		return n, syscall.ENOSPC
	}
	return n, nil
}

func (d *disk) Close() error { return nil }

func (d *disk) free(room int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.room = room
}

func logOn(d *disk, mode string) *Log {
	f := &file{out: d}
	return &Log{Backend: inMode(mode, pluginlog.NewBackend(f, pluginlog.FormatJson, auditv1.SchemeGroupVersion)), file: f}
}

func event(id types.UID) *auditinternal.Event {
	return &auditinternal.Event{AuditID: id, Level: auditinternal.LevelMetadata, Stage: auditinternal.StageRequestReceived}
}

// ids returns the ids of the events in the log. A line that is no JSON has none.
func (d *disk) ids(t *testing.T) []string {
	t.Helper()
	d.mu.Lock()
	defer d.mu.Unlock()
	var ids []string
	for line := range bytes.Lines(d.text.Bytes()) {
		var found auditv1.Event
		if json.Unmarshal(line, &found) == nil && found.AuditID != "" {
			ids = append(ids, string(found.AuditID))
		}
	}
	return ids
}

func awaitHealth(t *testing.T, log *Log, want bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); (log.Healthy() == nil) != want; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("healthy: %v, want %v", !want, want)
		}
	}
}

// TestFullDisk checks that a full disk is reported, that the first event after it is whole, and that the log recovers
// without an event.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	d := &disk{room: 1 << 20}
	log := logOn(d, Blocking)
	if !log.Backend.ProcessEvents(event("before")) || log.Healthy() != nil {
		t.Fatalf("with room: %v", log.Healthy())
	}
	d.free(40) // less than an event
	if !log.Backend.ProcessEvents(event("lost")) {
		t.Error("in mode blocking a request fails because of a full disk")
	}
	awaitHealth(t, log, false)
	d.free(1 << 20)
	log.Backend.ProcessEvents(event("after"))
	if err := log.Healthy(); err != nil {
		t.Errorf("after a write that succeeded: %v", err)
	}
	if got, want := d.ids(t), []string{"before", "after"}; !slices.Equal(got, want) {
		t.Errorf("the log holds %q, want %q", got, want)
	}

	d.free(0)
	log.Backend.ProcessEvents(event("lost"))
	for range 100 {
		if log.Healthy() == nil {
			t.Fatal("healthy without room")
		}
	}
	d.free(1000) // room for a short line in the last block, and for no other block
	for range 100 {
		if log.Healthy() == nil {
			t.Fatal("healthy with room in the last block only")
		}
	}
	d.free(1 << 20)
	awaitHealth(t, log, true)
}

// TestHangingDisk checks that a write that takes too long is reported, and not before.
func TestHangingDisk(t *testing.T) {
	t.Parallel()
	d := &disk{room: 1 << 20, hang: make(chan struct{})}
	log := logOn(d, Blocking)
	written := make(chan bool, 1)
	go func() { written <- log.Backend.ProcessEvents(event("slow")) }()
	for log.file.health.writing.Load() == nil {
		time.Sleep(time.Millisecond)
	}
	if err := log.Healthy(); err != nil {
		t.Errorf("a write that has just begun: %v", err)
	}
	past := time.Now().Add(-writeTimeout - time.Second)
	log.file.health.writing.Store(&past)
	if log.Healthy() == nil {
		t.Error("healthy while a write hangs")
	}
	close(d.hang)
	<-written
	awaitHealth(t, log, true)
}

// TestStrictMode checks that a request fails if its event is not written, and that health checks have no event of their
// arrival.
func TestStrictMode(t *testing.T) {
	t.Parallel()
	d := &disk{}
	if logOn(d, BlockingStrict).Backend.ProcessEvents(event("lost")) {
		t.Error("an event that is not written is reported as processed")
	}
	omitting := evaluator{OmitStages: []auditinternal.Stage{auditinternal.StageRequestReceived, auditinternal.StagePanic}}
	for path, omitted := range map[string]bool{"/api": false, "/livez": true, "/readyz/ping": true, "/healthz": true, "/livezy": false} {
		got := recordArrivals{omitting}.EvaluatePolicyRule(authorizer.AttributesRecord{Path: path}).OmitStages
		if slices.Contains(got, auditinternal.StageRequestReceived) != omitted || !slices.Contains(got, auditinternal.StagePanic) {
			t.Errorf("%s: omits %v", path, got)
		}
	}
	pod := authorizer.AttributesRecord{Path: "/livez", ResourceRequest: true, Resource: "pods"}
	if got := (recordArrivals{omitting}).EvaluatePolicyRule(pod).OmitStages; slices.Contains(got, auditinternal.StageRequestReceived) {
		t.Errorf("a request for a resource: omits %v", got)
	}
	if len(omitting.OmitStages) != 2 || omitting.OmitStages[0] != auditinternal.StageRequestReceived {
		t.Error("the policy itself was changed")
	}
}

type evaluator audit.RequestAuditConfig

func (e evaluator) EvaluatePolicyRule(authorizer.Attributes) audit.RequestAuditConfig {
	return audit.RequestAuditConfig(e)
}
