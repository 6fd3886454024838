package members

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"k8s.io/apiserver/pkg/server/egressselector"

	"lanyard.dev/internal/apiserver/registry/storagetest"
	"lanyard.dev/internal/etcd"
)

// site is two members and a client that uses both of them through Members, as the storage does.
type site struct {
	members *Members
	gates   [2]*storagetest.Gate
	client  *clientv3.Client
	direct  *clientv3.Client // without Members and gates
}

func newSite(t *testing.T) *site {
	t.Helper()
	server, err := etcd.Start(t.Context(), etcd.Config{Dir: t.TempDir(), UnsafeNoFsync: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Stop(context.Background()) })
	s := &site{gates: [2]*storagetest.Gate{storagetest.NewGate(t, server.Endpoint()), storagetest.NewGate(t, server.Endpoint())}}
	endpoints := []string{"http://" + s.gates[0].Addr().String(), s.gates[1].Addr().String()}
	if s.members, err = New(Config{Endpoints: endpoints, Key: "/health"}); err != nil {
		t.Fatal(err)
	}
	s.members.timing = timing{timeout: 500 * time.Millisecond, interval: 50 * time.Millisecond}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { s.members.Run(ctx) })
	t.Cleanup(func() { cancel(); running.Wait() })
	dial, err := s.members.Lookup(egressselector.Etcd.AsNetworkContext())
	if err != nil {
		t.Fatal(err)
	}
	s.client, err = clientv3.New(clientv3.Config{
		Endpoints: endpoints, Logger: zap.NewNop(),
		DialOptions: []grpc.DialOption{grpc.WithContextDialer(func(ctx context.Context, address string) (net.Conn, error) {
			return dial(ctx, "tcp", address)
		})},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.client.Close() })
	if _, err := s.client.Get(t.Context(), "/key"); err != nil { // the first request connects
		t.Fatal(err)
	}
	if s.direct, err = server.Client(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.direct.Close() })
	return s
}

func (s *site) of(i int) *member { return s.members.byAddress[s.gates[i].Addr().String()] }

// connections returns the number of the client's connections to a member.
func (s *site) connections(i int) int {
	one := s.of(i)
	one.mu.Lock()
	defer one.mu.Unlock()
	return len(one.conns)
}

func (s *site) usable(i int) bool {
	one := s.of(i)
	one.mu.Lock()
	defer one.mu.Unlock()
	return one.isUsable()
}

func await(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !holds(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within 30 seconds", what)
		}
	}
}

// TestHungMember makes one member hang while reads and watches use it, and checks that none of them is lost.
func TestHungMember(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	await(t, "a connection to each member", func() bool { return s.connections(0) == 1 && s.connections(1) == 1 })
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	// Two watches with streams of their own use one connection each.
	var watches []clientv3.WatchChan
	for range 2 {
		watcher := clientv3.NewWatcher(s.client)
		t.Cleanup(func() { _ = watcher.Close() })
		watches = append(watches, watcher.Watch(ctx, "/key", clientv3.WithCreatedNotify()))
	}
	for _, w := range watches {
		<-w
	}
	s.gates[1].Hang(true)
	if _, err := s.direct.Put(ctx, "/key", "value"); err != nil {
		t.Fatal(err)
	}
	for range 4 { // the connections are used in turn, so some reads use the member that hangs
		if _, err := s.client.Get(ctx, "/key"); err != nil {
			t.Errorf("a read while one of two members hangs: %v", err)
		}
	}
	for i, w := range watches {
		if response, ok := <-w; !ok || len(response.Events) != 1 {
			t.Errorf("watch %d: %+v, open=%v, want the event", i, response, ok)
		}
	}
	// On a busy machine, gRPC may send all of these reads to the other member before the probes notice the one that hangs.
	await(t, "no connection to the member that hangs", func() bool { return !s.usable(1) && s.connections(1) == 0 })
	if !s.usable(0) {
		t.Error("the member that responds is not used")
	}
	s.gates[1].Hang(false)
	await(t, "a connection to the member that responds again", func() bool { return s.usable(1) && s.connections(1) == 1 })
}

// TestDropSilent checks after which probes of two members one of them is dropped.
func TestDropSilent(t *testing.T) {
	t.Parallel()
	began := time.Now()
	long, short := began.Add(-2*defaultTiming.timeout), began.Add(-defaultTiming.timeout/2)
	for _, test := range []struct {
		name           string
		silent         time.Time // since when the first member has been silent
		otherSilent    time.Time
		otherResponded time.Time
		want           bool
	}{
		{"silent, the other has responded since", long, time.Time{}, began, true},
		{"silent for less than a probe may take", short, time.Time{}, began, false},
		{"silent, the other's response is older", long, time.Time{}, long.Add(-time.Second), false},
		{"both silent", long, long, long.Add(-time.Second), false},
		{"not silent", time.Time{}, time.Time{}, began, false},
	} {
		one, other := newMember("one", nil), newMember("other", nil)
		m := &Members{byAddress: map[string]*member{"one": one, "other": other}, timing: defaultTiming}
		other.recordResponse(test.otherResponded)
		for _, missed := range []struct {
			member *member
			since  time.Time
		}{{one, test.silent}, {other, test.otherSilent}} {
			if !missed.since.IsZero() {
				missed.member.recordSilence(missed.since)
				missed.member.recordSilence(began) // only the first counts
			}
		}
		m.dropSilent()
		if one.isUsable() == test.want || !other.isUsable() {
			t.Errorf("%s: dropped=%v, the other dropped=%v, want %v, false", test.name, !one.isUsable(), !other.isUsable(), test.want)
		}
		if one.recordResponse(began); !one.isUsable() {
			t.Errorf("%s: not used although it responds again", test.name)
		}
	}
}

// TestNew checks for which endpoints members are probed.
func TestNew(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		endpoints []string
		want      bool
	}{
		{[]string{"http://10.0.0.1:2379", "http://10.0.0.2:2379"}, true},
		{[]string{"10.0.0.1:2379", "10.0.0.2:2379"}, true},
		{[]string{"http://10.0.0.1:2379"}, false},
		{[]string{"http://10.0.0.1:2379", "http://10.0.0.1:2379/"}, false},
		{[]string{"unix:///run/etcd", "http://10.0.0.2:2379"}, false},
		{nil, false},
	} {
		m, err := New(Config{Endpoints: test.endpoints})
		if err != nil || (m != nil) != test.want {
			t.Errorf("%q: %v, %v, want members=%v", test.endpoints, m, err, test.want)
		}
		if m != nil {
			m.Close()
		}
	}
	if _, err := New(Config{Endpoints: []string{"https://a:1", "https://b:1"}, CAFile: "/nonexistent/ca"}); err == nil {
		t.Error("a missing CA file is no error")
	}
}

// TestIsSilence checks which errors of a probe mean that the member does not respond.
func TestIsSilence(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		err  error
		want bool
	}{
		{nil, false},
		{context.DeadlineExceeded, true},
		{status.Error(codes.DeadlineExceeded, "late"), true},
		{status.Error(codes.Unavailable, "etcdserver: no leader"), true},
		{status.Error(codes.PermissionDenied, "etcdserver: permission denied"), false},
		{errors.Join(io.EOF), false},
	} {
		if got := isSilence(test.err); got != test.want {
			t.Errorf("%v: silent=%v, want %v", test.err, got, test.want)
		}
	}
}

// TestDialFails dials a member that does not listen, and one that is not usable before the context ends.
func TestDialFails(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	_ = l.Close()
	one := newMember(address, nil)
	m := &Members{byAddress: map[string]*member{address: one}}
	if conn, err := m.dial(t.Context(), "tcp", address); err == nil {
		t.Errorf("a member that does not listen: %v", conn)
	}
	one.drop()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if conn, err := m.dial(ctx, "tcp", address); !errors.Is(err, context.Canceled) {
		t.Errorf("a member that is not usable: %v, %v", conn, err)
	}
}

// TestRunFreesTheProbes checks that Run closes the clients of the probes when it ends.
func TestRunFreesTheProbes(t *testing.T) {
	t.Parallel()
	m, err := New(Config{Endpoints: []string{"http://127.0.0.1:1", "http://127.0.0.1:2"}, Key: "/health"})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	m.Run(ctx)
	for address, one := range m.byAddress {
		if one.client.Ctx().Err() == nil {
			t.Errorf("the client of %s is still open", address)
		}
	}
}
