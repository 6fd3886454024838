package nodelife

import (
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// TestHeardOfWhileGivenUp renews a lease while a look at the node, which was lost, comes to its end: the renewal has left
// it to that look to come again, so it must.
func TestHeardOfWhileGivenUp(t *testing.T) {
	t.Parallel()
	m, now := newMemory(), time.Unix(1000, 0)
	renew := func(version string) bool {
		at := metav1.NewMicroTime(now)
		return m.setLease("n", version, &at, now)
	}
	m.setNode("n", true, now)
	if !renew("1") {
		t.Fatal("the first lease calls for no look")
	}
	looked, _, _ := m.heard("n")
	now = now.Add(GracePeriod)
	if renew("2") {
		t.Fatal("the queue is told twice")
	}
	if m.disarm("n", looked) {
		t.Fatal("nobody would look at the node again")
	}
	looked, _, _ = m.heard("n")
	if !m.disarm("n", looked) || !func() bool { now = now.Add(time.Second); return renew("3") }() {
		t.Error("a node that is not heard of stays in the queue, or is not taken up again")
	}
}
