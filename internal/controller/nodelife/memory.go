package nodelife

import (
	"maps"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// memory is what the feeds have told.
type memory struct {
	mu    sync.Mutex
	nodes map[string]*life
	pods  map[string]map[types.NamespacedName]types.UID // by node: those that have not ended
	on    map[types.NamespacedName]string               // their nodes
}

// life is what is known of a node's life.
type life struct {
	node, lease bool // that there is one
	leased      bool // that there ever was a lease

	heard   time.Time // when its agent was last heard of, by this process' clock
	renewed metav1.MicroTime
	version string // the lease's
	armed   bool   // the queue will bring the node up again
	marked  bool   // its pods have been told of as not ready
}

func newMemory() *memory {
	return &memory{nodes: map[string]*life{}, pods: map[string]map[types.NamespacedName]types.UID{}, on: map[types.NamespacedName]string{}}
}

func (m *memory) named(name string) *life {
	l := m.nodes[name]
	if l == nil {
		l = &life{}
		m.nodes[name] = l
	}
	return l
}

// setNode tells whether the node needs a look for the sake of its life; lost is whether its state says so.
func (m *memory) setNode(name string, lost bool, now time.Time) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	l := m.named(name)
	if !l.node {
		// A lease that outlived the node's last registration says nothing of this one.
		l.node, l.heard = true, now
	}
	if !lost {
		l.marked = false
	}
	return lost && !l.marked || l.arm()
}

// arm tells whether the queue does not know of the node and should.
func (l *life) arm() bool {
	if l.armed || !l.leased || !l.node {
		return false
	}
	l.armed = true
	return true
}

func (m *memory) deleteNode(name string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if l := m.nodes[name]; l != nil {
		l.node, l.marked, l.armed, l.leased = false, false, false, l.lease
		m.drop(name, l)
	}
}

func (m *memory) drop(name string, l *life) {
	if !l.node && !l.lease {
		delete(m.nodes, name)
	}
}

// setLease tells whether the node needs a look.
func (m *memory) setLease(name, version string, renewed *metav1.MicroTime, now time.Time) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	l := m.named(name)
	if !l.leased || renewed != nil && !renewed.Time.Equal(l.renewed.Time) {
		l.heard = now
	}
	if renewed != nil {
		l.renewed = *renewed
	}
	l.lease, l.leased, l.version = true, true, version
	return l.arm()
}

func (m *memory) deleteLease(name string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if l := m.nodes[name]; l != nil {
		l.lease = false
		m.drop(name, l)
	}
}

// heard returns when the node's agent was last heard of, and by which version of its lease; ok is false if it never had one.
func (m *memory) heard(name string) (at time.Time, version string, ok bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	l := m.nodes[name]
	if l == nil || !l.leased {
		return time.Time{}, "", false
	}
	return l.heard, l.version, true
}

func (m *memory) hear(name string, now time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if l := m.nodes[name]; l != nil {
		l.heard = now
	}
}

// disarm notes that the queue will not bring the node up again by itself. It does not where the node was heard of since
// then, and returns false: whoever told of that has left it to the queue.
func (m *memory) disarm(name string, heard time.Time) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	l := m.nodes[name]
	if l != nil && !l.heard.Equal(heard) {
		return false
	}
	if l != nil {
		l.armed = false
	}
	return true
}

func (m *memory) isMarked(name string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	l := m.nodes[name]
	return l != nil && l.marked
}

func (m *memory) marked(name string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if l := m.nodes[name]; l != nil {
		l.marked = true
	}
}

func (m *memory) setPod(key types.NamespacedName, uid types.UID, node string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.on[key] == node && m.pods[node][key] == uid {
		return
	}
	m.removePod(key)
	m.on[key] = node
	if m.pods[node] == nil {
		m.pods[node] = map[types.NamespacedName]types.UID{}
	}
	m.pods[node][key] = uid
}

func (m *memory) deletePod(key types.NamespacedName) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.removePod(key)
}

func (m *memory) removePod(key types.NamespacedName) {
	node, ok := m.on[key]
	if !ok {
		return
	}
	delete(m.on, key)
	if delete(m.pods[node], key); len(m.pods[node]) == 0 {
		delete(m.pods, node)
	}
}

func (m *memory) podsOn(node string) map[types.NamespacedName]types.UID {
	m.mu.Lock()
	defer m.mu.Unlock()
	return maps.Clone(m.pods[node])
}
