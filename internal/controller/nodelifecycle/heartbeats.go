package nodelifecycle

import (
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// heartbeats remembers what the feeds reported of each node and its Lease.
type heartbeats struct {
	mu    sync.Mutex
	nodes map[string]*heartbeat
}

// heartbeat is the state of one node.
type heartbeat struct {
	hasNode, hasLease bool
	everLeased        bool // whether there ever was a Lease

	last       time.Time        // of the last renewal, by the clock of this process
	renewTime  metav1.MicroTime // of the Lease
	version    string           // of the Lease
	queued     bool             // the queue holds the node, now or for later
	podsMarked bool             // its pods have been set to not ready
}

func newHeartbeats() *heartbeats { return &heartbeats{nodes: map[string]*heartbeat{}} }

// entry returns the state of a node, which it adds if it is new. The caller holds mu.
func (h *heartbeats) entry(name string) *heartbeat {
	n := h.nodes[name]
	if n == nil {
		n = &heartbeat{}
		h.nodes[name] = n
	}
	return n
}

// setNode records a node and reports whether the queue needs it because of its heartbeat. unknown is whether the node's
// state is Unknown.
func (h *heartbeats) setNode(name string, unknown bool, now time.Time) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	n := h.entry(name)
	if !n.hasNode {
		// A Lease that is older than this registration of the node is no heartbeat of it.
		n.hasNode, n.last = true, now
	}
	if !unknown {
		n.podsMarked = false
	}
	return unknown && !n.podsMarked || n.enqueue()
}

// enqueue reports whether the node must be put into the queue, and notes that it is.
func (n *heartbeat) enqueue() bool {
	if n.queued || !n.everLeased || !n.hasNode {
		return false
	}
	n.queued = true
	return true
}

func (h *heartbeats) deleteNode(name string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if n := h.nodes[name]; n != nil {
		n.hasNode, n.podsMarked, n.queued, n.everLeased = false, false, false, n.hasLease
		h.drop(name, n)
	}
}

// drop forgets a name for which there is neither a node nor a Lease.
func (h *heartbeats) drop(name string, n *heartbeat) {
	if !n.hasNode && !n.hasLease {
		delete(h.nodes, name)
	}
}

// setLease records a Lease and reports whether the queue needs its node.
func (h *heartbeats) setLease(name, version string, renewTime *metav1.MicroTime, now time.Time) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	n := h.entry(name)
	if !n.everLeased || renewTime != nil && !renewTime.Time.Equal(n.renewTime.Time) {
		n.last = now
	}
	if renewTime != nil {
		n.renewTime = *renewTime
	}
	n.hasLease, n.everLeased, n.version = true, true, version
	return n.enqueue()
}

func (h *heartbeats) deleteLease(name string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if n := h.nodes[name]; n != nil {
		n.hasLease = false
		h.drop(name, n)
	}
}

// last returns the time of the node's last heartbeat and the version of its Lease; false if it never had a Lease.
func (h *heartbeats) last(name string) (at time.Time, version string, ok bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	n := h.nodes[name]
	if n == nil || !n.everLeased {
		return time.Time{}, "", false
	}
	return n.last, n.version, true
}

// record notes a heartbeat that no feed has reported.
func (h *heartbeats) record(name string, now time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if n := h.nodes[name]; n != nil {
		n.last = now
	}
}

// dequeue notes that the queue no longer holds the node, and reports true. If there was a heartbeat after last, it
// reports false and changes nothing: that heartbeat did not put the node into the queue, because the queue held it.
func (h *heartbeats) dequeue(name string, last time.Time) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	n := h.nodes[name]
	if n != nil && !n.last.Equal(last) {
		return false
	}
	if n != nil {
		n.queued = false
	}
	return true
}

func (h *heartbeats) arePodsMarked(name string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	n := h.nodes[name]
	return n != nil && n.podsMarked
}

func (h *heartbeats) setPodsMarked(name string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if n := h.nodes[name]; n != nil {
		n.podsMarked = true
	}
}
