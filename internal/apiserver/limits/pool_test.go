package limits

import (
	"fmt"
	"testing"
)

func robot(namespace, name string) Caller {
	return Caller{Name: "system:serviceaccount:" + namespace + ":" + name, Tenant: namespace}
}

// take acquires one at a time until the pool refuses, and returns how many it got.
func take(p *Pool, c Caller, class Class) (taken int) {
	for p.Acquire(c, class, 1) {
		taken++
	}
	return taken
}

// TestOneCallerLeavesRoom checks how much a single caller of each class can hold.
func TestOneCallerLeavesRoom(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		caller Caller
		class  Class
		want   int
	}{
		"a user":                       {Caller{Name: "jane"}, Common, 75},
		"an account":                   {robot("ns", "a"), Common, 75},
		"an address":                   {CallerAt("192.0.2.1:4711"), Common, 75},
		"a caller with token requests": {robot("ns", "a"), Vital, 88},
		"a node":                       {Caller{Name: "system:node:n"}, Node, 100},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := NewPool(200)
			if got := take(p, tt.caller, tt.class); got != tt.want {
				t.Errorf("holds %d of 200, want %d", got, tt.want)
			}
			if !p.Acquire(Caller{Name: "other"}, Common, 1) {
				t.Error("there is no room for another caller")
			}
		})
	}
}

// TestOneTenantLeavesRoom checks how much the accounts of one namespace can hold together.
func TestOneTenantLeavesRoom(t *testing.T) {
	t.Parallel()
	fill := func(p *Pool) (held int) {
		for i := range 1000 {
			held += take(p, robot("ns", fmt.Sprint(i)), Common)
		}
		return held
	}
	p := NewPool(200)
	if held := fill(p); held != 100 {
		t.Errorf("a thousand accounts of one namespace hold %d of 200, want 100", held)
	}
	if held := fill(NewPool(10)); held != 6 {
		t.Errorf("a thousand accounts of one namespace hold %d of 10, want 6: twice the 3 that were free for the last", held)
	}
	if got := take(p, robot("other", "a"), Common); got < 20 {
		t.Errorf("an account of another namespace holds %d places, want at least 20", got)
	}
}

// TestManyCallersShare checks that callers who take all they can get hold equal parts, and that there is room for one more.
func TestManyCallersShare(t *testing.T) {
	t.Parallel()
	p := NewPool(200)
	held := map[string]int{}
	for round := true; round; {
		round = false
		for i := range 9 {
			c := Caller{Name: fmt.Sprint(i)}
			if p.Acquire(c, Common, 1) {
				held[c.Name]++
				round = true
			}
		}
	}
	for name, got := range held {
		if got != 15 {
			t.Errorf("caller %s holds %d, want 15, a tenth of 150", name, got)
		}
	}
	if got := take(p, Caller{Name: "late"}, Common); got == 0 {
		t.Error("there is no room for a tenth caller")
	}
}

// TestReservedRoom fills a pool with common and then with vital requests, and checks what is left for others.
func TestReservedRoom(t *testing.T) {
	t.Parallel()
	p := NewPool(200)
	fill := func(class Class) {
		for i := range 2000 {
			take(p, Caller{Name: fmt.Sprintf("%d-%d", class, i)}, class)
		}
	}
	fill(Common)
	if p.used != 150 || p.Acquire(Caller{Name: "late"}, Common, 1) {
		t.Errorf("common requests fill %d of 200, want 150", p.used)
	}
	fill(Vital)
	if p.used != 175 || p.Acquire(Caller{Name: "late"}, Vital, 1) {
		t.Errorf("with vital requests %d of 200 are in use, want 175", p.used)
	}
	if !p.Acquire(Caller{Name: "system:node:n"}, Node, 1) {
		t.Error("there is no room for a node")
	}
}

// TestRelease checks that a released place can be acquired again, and that nothing is kept after the last release.
func TestRelease(t *testing.T) {
	t.Parallel()
	p := NewPool(200)
	for _, c := range []Caller{robot("ns", "a"), robot("ns", "b"), CallerAt("192.0.2.1:1")} {
		held := take(p, c, Common)
		p.Release(c, 1)
		if got := take(p, c, Common); got != 1 {
			t.Errorf("%s took %d after it released one of %d", c.Name, got, held)
		}
		for range held {
			p.Release(c, 1)
		}
	}
	if p.used != 0 || len(p.callers) != 0 || len(p.tenants) != 0 {
		t.Errorf("after everything was released: %d in use, callers %v, tenants %v", p.used, p.callers, p.tenants)
	}
}

// TestCallerAt checks which addresses are one caller.
func TestCallerAt(t *testing.T) {
	t.Parallel()
	for address, want := range map[string]string{
		"192.0.2.1:4711":                "192.0.2.1",
		"[2001:db8:1:2:3:4:5:6]:443":    "2001:db8:1:2::/64",
		"[2001:db8:1:2:ffff::1%eth0]:1": "2001:db8:1:2::/64",
		"127.0.0.1:1":                   "loopback",
		"127.9.8.7:1":                   "loopback",
		"[::1]:1":                       "loopback",
		"[::ffff:127.0.0.2]:1":          "loopback",
		"@":                             "@",
	} {
		if got := CallerAt(address); got.Name != want || !got.Anonymous {
			t.Errorf("%s is %+v, want %s", address, got, want)
		}
	}
}

func BenchmarkAcquire(b *testing.B) {
	p, c := NewPool(200), robot("ns", "a")
	b.ReportAllocs()
	for b.Loop() {
		if p.Acquire(c, Common, 1) {
			p.Release(c, 1)
		}
	}
}
