package limits

import (
	"net/netip"
	"sync"
)

// Class says how much of a Pool a request may fill.
type Class int

const (
	// Common is every request that is none of the following.
	Common Class = iota
	// Vital is a Lease or a token request: without them processes lose their identity or their leadership.
	Vital
	// Node is whatever a node asks.
	Node

	classes
)

// Caller is who holds a part of a Pool.
type Caller struct {
	// Name is the user, or the source address of a caller without a credential.
	Name string
	// Tenant is the namespace of a service account. A user who may create accounts in a namespace can be many callers,
	// so the callers of one tenant are limited together as well. Empty means none.
	Tenant string
	// Anonymous says that Name is an address, which no user name can collide with.
	Anonymous bool
}

// CallerAt is the caller without a credential at a network address with a port, which does not matter. The addresses of
// one IPv6 network of 64 bits count as one, because one machine may have all of them, and so do those of loopback.
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

// Pool gives out a fixed amount of something: places for requests, or bytes. The zero value gives out nothing. A Pool
// is safe for concurrent use.
type Pool struct {
	mu      sync.Mutex
	limits  [classes]int64
	used    int64
	callers map[Caller]int64
	tenants map[string]int64
}

// NewPool returns a pool of the given size. An eighth of it is for nodes alone, and another eighth for nodes and vital
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
// A caller may hold as much as stays free for its class, and a tenant twice as much. Alone, a caller gets half of what
// its class may fill; where many callers want all they can get, they get equal parts, and one part stays free for
// whoever comes next. A caller that holds nothing is refused only if n does not fit at all.
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

// Release gives back what Acquire took.
func (p *Pool) Release(c Caller, n int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.used -= n
	put(p.callers, c, -n)
	if c.Tenant != "" {
		put(p.tenants, c.Tenant, -n)
	}
}

// put adds n to an entry and forgets the entry when nothing is left, so that the map holds current callers only.
func put[K comparable](held map[K]int64, key K, n int64) {
	if held[key] += n; held[key] == 0 {
		delete(held, key)
	}
}
