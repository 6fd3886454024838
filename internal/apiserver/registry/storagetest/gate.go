package storagetest

import (
	"net"
	"strings"
	"sync"
	"testing"
)

// Gate is a TCP address of an etcd that a test can make unresponsive. Then connections are accepted and remain open, and no
// bytes are forwarded.
type Gate struct {
	net.Listener
	socket string

	mu    sync.Mutex
	moved *sync.Cond
	hung  bool
	ended bool
	conns map[net.Conn]struct{}
}

// NewGate returns a gate in front of an etcd that listens on a unix socket. It ends with the test.
func NewGate(t testing.TB, endpoint string) *Gate {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	g := &Gate{Listener: l, socket: strings.TrimPrefix(endpoint, "unix://"), conns: map[net.Conn]struct{}{}}
	g.moved = sync.NewCond(&g.mu)
	var running sync.WaitGroup
	running.Go(func() { g.serve(&running) })
	t.Cleanup(func() { g.end(); running.Wait() })
	return g
}

func (g *Gate) serve(running *sync.WaitGroup) {
	for {
		client, err := g.Accept()
		if err != nil {
			return
		}
		server, err := net.Dial("unix", g.socket)
		if err != nil {
			_ = client.Close()
			continue
		}
		g.mu.Lock()
		g.conns[client], g.conns[server] = struct{}{}, struct{}{}
		g.mu.Unlock()
		running.Go(func() { g.pass(server, client) })
		running.Go(func() { g.pass(client, server) })
	}
}

func (g *Gate) pass(to, from net.Conn) {
	defer func() { _ = to.Close(); _ = from.Close() }()
	buffer := make([]byte, 32<<10)
	for {
		n, err := from.Read(buffer)
		g.mu.Lock()
		for g.hung && !g.ended {
			g.moved.Wait()
		}
		ended := g.ended
		g.mu.Unlock()
		if n > 0 && !ended {
			_, _ = to.Write(buffer[:n])
		}
		if err != nil || ended {
			return
		}
	}
}

// Hang stops or resumes the forwarding of bytes.
func (g *Gate) Hang(hung bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.hung = hung
	g.moved.Broadcast()
}

func (g *Gate) end() {
	_ = g.Close()
	g.mu.Lock()
	defer g.mu.Unlock()
	g.ended = true
	g.moved.Broadcast()
	for c := range g.conns {
		_ = c.Close()
	}
}
