package nodelifecycle

import (
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// TestHeartbeatWhileNodeIsMarked renews a Lease while the node, which is in state Unknown, is about to leave the queue.
// The renewal does not queue the node, so the node must stay in the queue.
func TestHeartbeatWhileNodeIsMarked(t *testing.T) {
	t.Parallel()
	h, now := newHeartbeats(), time.Unix(1000, 0)
	renew := func(version string) bool {
		at := metav1.NewMicroTime(now)
		return h.setLease("n", version, &at, now)
	}
	h.setNode("n", true, now)
	if !renew("1") {
		t.Fatal("the first lease does not queue the node")
	}
	last, _, _ := h.last("n")
	now = now.Add(GracePeriod)
	if renew("2") {
		t.Fatal("the node is queued twice")
	}
	if h.dequeue("n", last) {
		t.Fatal("the node leaves the queue, although it has a new heartbeat")
	}
	last, _, _ = h.last("n")
	if !h.dequeue("n", last) || !func() bool { now = now.Add(time.Second); return renew("3") }() {
		t.Error("a node without a new heartbeat stays in the queue, or a later heartbeat does not queue it")
	}
}
