//go:build linux

package node

import (
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

// emptyNetwork returns the path of a new network namespace whose only interface is loopback.
func emptyNetwork(t *testing.T) string {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("skipped: only root makes network namespaces")
	}
	type result struct {
		namespace *os.File
		err       error
	}
	done := make(chan result)
	go func() {
		runtime.LockOSThread()
		namespace, err := unshareNetwork()
		done <- result{namespace, err}
	}()
	r := <-done
	if r.err != nil {
		t.Fatal(r.err)
	}
	t.Cleanup(func() { _ = r.namespace.Close() })
	return fmt.Sprintf("/proc/self/fd/%d", r.namespace.Fd())
}

func unshareNetwork() (*os.File, error) {
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return nil, err
	}
	socket, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(socket)
	loopback, err := unix.NewIfreq("lo")
	if err != nil {
		return nil, err
	}
	loopback.SetUint16(unix.IFF_UP)
	if err := unix.IoctlIfreq(socket, unix.SIOCSIFFLAGS, loopback); err != nil {
		return nil, err
	}
	return os.Open("/proc/thread-self/ns/net")
}

// echo starts an authority that echoes what it reads.
func echo(t *testing.T) (address string) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() { defer conn.Close(); _, _ = io.Copy(conn, conn) }()
		}
	}()
	return listener.Addr().String()
}

func dialIn(t *testing.T, network, address string) (*net.TCPConn, error) {
	t.Helper()
	var conn net.Conn
	var err error
	if enterErr := inNetwork(network, func() { conn, err = net.Dial("tcp", address) }); enterErr != nil {
		t.Fatal(enterErr)
	}
	if err != nil {
		return nil, err
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn.(*net.TCPConn), nil
}

func TestRelay(t *testing.T) {
	t.Parallel()
	network, address := emptyNetwork(t), echo(t)
	if _, err := dialIn(t, network, address); err == nil {
		t.Fatal("the network namespace is not one of its own")
	}
	r := newRelays(address)
	t.Cleanup(r.CloseAll)
	for range 2 { // Open is idempotent
		if err := r.Open("sandbox", network); err != nil {
			t.Fatal(err)
		}
	}
	conn, err := dialIn(t, network, address)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(conn, "hello"); err != nil {
		t.Fatal(err)
	}
	if err := conn.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if heard, err := io.ReadAll(conn); string(heard) != "hello" || err != nil {
		t.Errorf("heard %q, %v", heard, err)
	}

	open, err := dialIn(t, network, address)
	if err != nil {
		t.Fatal(err)
	}
	r.Close("sandbox")
	if rest, _ := io.ReadAll(open); len(rest) > 0 {
		t.Errorf("heard %q from a relay that is closed", rest)
	}
	if _, err := dialIn(t, network, address); err == nil {
		t.Error("a relay that is closed still listens")
	}
}

func TestRelayIsBounded(t *testing.T) {
	t.Parallel()
	network, address := emptyNetwork(t), echo(t)
	r := newRelays(address)
	t.Cleanup(r.CloseAll)
	if err := r.Open("sandbox", network); err != nil {
		t.Fatal(err)
	}
	say := func(conn net.Conn) error {
		if _, err := io.WriteString(conn, "x"); err != nil {
			return err
		}
		_, err := io.ReadFull(conn, make([]byte, 1))
		return err
	}
	for range podConnections {
		conn, err := dialIn(t, network, address)
		if err != nil {
			t.Fatal(err)
		}
		if err := say(conn); err != nil {
			t.Fatal(err)
		}
	}
	conn, err := dialIn(t, network, address)
	if err == nil {
		err = say(conn)
	}
	if err == nil {
		t.Error("one pod has more connections than it may have")
	}
}

func TestTakeSlots(t *testing.T) {
	t.Parallel()
	one, other, shared := make(chan struct{}, 2), make(chan struct{}, 2), make(chan struct{}, 3)
	for i, want := range []bool{true, true, false} {
		if got := takeSlots(one, shared); got != want {
			t.Errorf("connection %d of the first pod: %v, want %v", i+1, got, want)
		}
	}
	if !takeSlots(other, shared) || takeSlots(other, shared) {
		t.Error("the second pod did not get exactly the slot that was left")
	}
	if len(other) != 1 || len(shared) != 3 {
		t.Errorf("refused connections keep slots: %d, %d", len(other), len(shared))
	}
	if n := nodeConnections(); n < podConnections || n > maxNodeConnections {
		t.Errorf("%d connections of all pods", n)
	}
}

func TestIsLoopback(t *testing.T) {
	t.Parallel()
	for host, want := range map[string]bool{
		"127.0.0.1": true, "127.1.2.3": true, "::1": true, "localhost": true,
		"192.0.2.7": false, "authority.example.com": false, "0.0.0.0": false,
	} {
		if got := isLoopback(host); got != want {
			t.Errorf("%s: loopback %v, want %v", host, got, want)
		}
	}
}

func TestParseAuthority(t *testing.T) {
	t.Parallel()
	for server, want := range map[string]string{
		"https://127.0.0.1:6443": "127.0.0.1:6443", "https://authority.example.com": "authority.example.com:443",
		"https://[::1]:6443/": "[::1]:6443", "not a url": "", "": "", "/path": "",
	} {
		a, err := parseAuthority(server)
		if want == "" && err == nil || want != "" && a.address() != want {
			t.Errorf("%q: got %v, %v; want %q", server, a, err, want)
		}
	}
	env := map[string]string{}
	for _, e := range (authority{"10.0.0.1", "6443"}).env() {
		env[e.Name] = e.Value
	}
	for name, want := range map[string]string{
		"KUBERNETES_SERVICE_HOST": "10.0.0.1", "KUBERNETES_SERVICE_PORT": "6443", "KUBERNETES_PORT_6443_TCP_ADDR": "10.0.0.1",
		"KUBERNETES_PORT": "tcp://10.0.0.1:6443",
	} {
		if env[name] != want {
			t.Errorf("%s is %q, want %q", name, env[name], want)
		}
	}
}
