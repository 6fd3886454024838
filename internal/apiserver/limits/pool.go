package limits

import (
	"net/netip"
	"sync"
)

// Class is the class of a request. It determines how much of a Pool the request may fill.
type Class int

const (
	// Common is the class of every request that has no other.
	Common Class = iota
	// Vital is the class of requests for Leases and tokens. Without them, processes lose their leadership or identity.
	Vital
	// Node is the class of all requests of nodes.
	Node

	classes
)

// Caller identifies the holder of a part of a Pool.
type Caller struct {
	// Name is the user, or the source address of a caller without a credential.
	Name string
	// Tenant is the namespace of a service account, or empty. A user who may create accounts in a namespace can be many
	// callers, so the callers of one tenant are limited together as well.
	Tenant string
	// Anonymous is whether Name is an address. It keeps an address apart from a user with the same name.
	Anonymous bool
}

// CallerAt returns the caller without a credential at a network address. The port of the address does not matter. All
// addresses of a /64 network of IPv6 are one caller, because one machine may have all of them, and so are all loopback
// addresses.
func CallerAt(address string) Caller {
	parsed, err := netip.ParseAddrPort(address)
	if err != nil {
		return Caller{Name: address, Anonymous: true}
	}
	ip := parsed.Addr().Unmap()
	if ip.IsLoopback() {
		return Caller{Name: "loopback", Anonymous: true}
	}
	if network, err := ip.Prefix(64); err == nil { // an IPv4 address has no 64 bits
		return Caller{Name: network.String(), Anonymous: true}
	}
	return Caller{Name: ip.String(), Anonymous: true}
}

// Pool divides a fixed amount among callers: places for requests, or bytes. The zero value has nothing to give. A Pool is
// safe for concurrent use.
type Pool struct {
	mu      sync.Mutex
	limits  [classes]int64
	used    int64
	callers map[Caller]int64
	tenants map[string]int64
}

// NewPool returns a pool of the given size. An eighth of it is reserved for nodes, and another eighth for nodes and vital
// requests.
func NewPool(size int64) *Pool {
	return &Pool{
		limits:  [classes]int64{Common: size - size/4, Vital: size - size/8, Node: size},
		callers: map[Caller]int64{}, tenants: map[string]int64{},
	}
}

// Acquire takes n for a caller and reports whether there was room. Each success must be followed by one Release of the
// same n.
//
// A caller may hold as much as is left free for its class, and a tenant twice as much. So a single caller gets half of
// what its class may fill. If many callers want as much as possible, they get equal parts, and one part stays free for
// the next caller. A caller that holds nothing is refused only if n does not fit at all.
func (p *Pool) Acquire(c Caller, class Class, n int64) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	free := p.limits[class] - p.used
	if p.callers[c]+n > free {
		return false
	}
	if c.Tenant != "" {
		if p.tenants[c.Tenant]+n > 2*free {
			return false
		}
		p.tenants[c.Tenant] += n
	}
	p.callers[c] += n
	p.used += n
	return true
}

// Release returns n, which Acquire took for c.
func (p *Pool) Release(c Caller, n int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.used -= n
	add(p.callers, c, -n)
	if c.Tenant != "" {
		add(p.tenants, c.Tenant, -n)
	}
}

// add adds n to an entry and removes the entry when it is 0, so that the map has entries of current callers only.
func add[K comparable](held map[K]int64, key K, n int64) {
	if held[key] += n; held[key] == 0 {
		delete(held, key)
	}
}
