//go:build linux

package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/klog/v2"
)

// authority is the address of the API server, as pods and this machine see it.
type authority struct{ host, port string }

func parseAuthority(server string) (authority, error) {
	u, err := url.Parse(server)
	if err != nil || u.Hostname() == "" {
		return authority{}, fmt.Errorf("the kubeconfig's server %q is no URL with a host", server)
	}
	port := u.Port()
	if port == "" {
		port = "443"
	}
	return authority{u.Hostname(), port}, nil
}

func (a authority) address() string { return net.JoinHostPort(a.host, a.port) }

// env returns the variables by which clients in a pod find the authority. They are the variables of a service "kubernetes" in
// "default".
func (a authority) env() []corev1.EnvVar {
	target := "tcp://" + a.address()
	prefix := "KUBERNETES_PORT_" + a.port + "_TCP"
	return []corev1.EnvVar{
		{Name: "KUBERNETES_SERVICE_HOST", Value: a.host},
		{Name: "KUBERNETES_SERVICE_PORT", Value: a.port},
		{Name: "KUBERNETES_SERVICE_PORT_HTTPS", Value: a.port},
		{Name: "KUBERNETES_PORT", Value: target},
		{Name: prefix, Value: target},
		{Name: prefix + "_PROTO", Value: "tcp"},
		{Name: prefix + "_PORT", Value: a.port},
		{Name: prefix + "_ADDR", Value: a.host},
	}
}

// localAddress returns the address of this machine from which it reaches the authority. The authority reaches this machine
// at the same address, unless the network between them translates addresses.
func (a authority) localAddress(ctx context.Context) (net.IP, error) {
	dialer := net.Dialer{Timeout: 10 * time.Second}
	conn, err := dialer.DialContext(ctx, "tcp", a.address())
	if err != nil {
		return nil, fmt.Errorf("connect to the authority: %w", err)
	}
	defer conn.Close()
	local, ok := conn.LocalAddr().(*net.TCPAddr)
	if !ok {
		return nil, errors.New("the connection to the authority is not one of TCP")
	}
	return local.IP, nil
}

// isLoopback reports whether host is this machine's loopback, which pods with a network of their own do not reach.
func isLoopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// relays let pods reach an authority that listens on this machine's loopback address alone, as `lanyard up` does by
// default. Each network namespace has a loopback of its own, so the agent listens at the authority's address in the network
// namespace of each pod, and forwards connections. It terminates nothing: TLS is between the pod and the authority.
type relays struct {
	address string // host:port of the authority
	dialer  net.Dialer
	slots   chan struct{} // one for each connection of all pods

	mu   sync.Mutex
	open map[string]*relay // by sandbox
}

const (
	// podConnections bounds the connections of one pod.
	podConnections = 256

	// A connection takes two file descriptors of the agent, and a third of an authority in the same process. With
	// descriptorsEach, all pods together take at most half of the descriptors that the process may have.
	descriptorsEach    = 6
	maxNodeConnections = 8192
)

// nodeConnections returns how many connections all pods together may have.
func nodeConnections() int {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return podConnections
	}
	return int(min(max(limit.Cur/descriptorsEach, podConnections), maxNodeConnections))
}

func newRelays(address string) *relays {
	return &relays{
		address: address, dialer: net.Dialer{Timeout: 10 * time.Second}, slots: make(chan struct{}, nodeConnections()), open: map[string]*relay{},
	}
}

// Open listens in a sandbox's network namespace. It does nothing if it listens there already.
func (r *relays) Open(sandboxID, namespacePath string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.open[sandboxID] != nil {
		return nil
	}
	listener, err := listenIn(namespacePath, r.address)
	if err != nil {
		return fmt.Errorf("listen at %s in the network of sandbox %s: %w", r.address, sandboxID, err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	one := &relay{listener: listener, dial: r.dial, cancel: cancel, podSlots: make(chan struct{}, podConnections), nodeSlots: r.slots}
	r.open[sandboxID] = one
	go one.serve(ctx)
	return nil
}

func (r *relays) dial(ctx context.Context) (net.Conn, error) {
	return r.dialer.DialContext(ctx, "tcp", r.address)
}

// Close ends a sandbox's relay and its connections.
func (r *relays) Close(sandboxID string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if one := r.open[sandboxID]; one != nil {
		one.close()
		delete(r.open, sandboxID)
	}
}

// CloseAll ends every relay.
func (r *relays) CloseAll() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for id, one := range r.open {
		one.close()
		delete(r.open, id)
	}
}

// relay forwards the connections of one pod.
type relay struct {
	listener net.Listener
	dial     func(context.Context) (net.Conn, error)
	cancel   context.CancelFunc
	// Each connection takes a slot of both.
	podSlots, nodeSlots chan struct{}
}

func (r *relay) close() {
	r.cancel()
	_ = r.listener.Close()
}

func (r *relay) serve(ctx context.Context) {
	for {
		conn, err := r.listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			klog.V(2).InfoS("Could not accept a connection of a pod", "err", err)
			select {
			case <-ctx.Done():
				return
			case <-time.After(100 * time.Millisecond): // for instance, too many files are open
			}
			continue
		}
		if !takeSlots(r.podSlots, r.nodeSlots) {
			_ = conn.Close()
			continue
		}
		go func() {
			defer func() { <-r.podSlots; <-r.nodeSlots }()
			r.forward(ctx, conn)
		}()
	}
}

// takeSlots takes a slot of each, or of neither.
func takeSlots(pod, node chan struct{}) bool {
	select {
	case pod <- struct{}{}:
	default:
		return false
	}
	select {
	case node <- struct{}{}:
		return true
	default:
		<-pod
		return false
	}
}

func (r *relay) forward(ctx context.Context, pod net.Conn) {
	defer pod.Close()
	authority, err := r.dial(ctx)
	if err != nil {
		return // the pod sees a closed connection, and tries again
	}
	defer authority.Close()
	defer context.AfterFunc(ctx, func() { _, _ = pod.Close(), authority.Close() })()
	var both sync.WaitGroup
	both.Go(func() { copyConn(authority, pod) })
	both.Go(func() { copyConn(pod, authority) })
	both.Wait()
}

// copyConn copies until from ends, and then closes the writing side of to.
func copyConn(to, from net.Conn) {
	_, err := io.Copy(to, from)
	if half, ok := to.(interface{ CloseWrite() error }); ok && err == nil {
		_ = half.CloseWrite()
		return
	}
	_, _ = to.Close(), from.Close()
}

// listenIn listens in another network namespace. A socket stays in the namespace in which it was made, so only the call to
// Listen happens there.
func listenIn(namespacePath, address string) (listener net.Listener, err error) {
	enterErr := inNetwork(namespacePath, func() { listener, err = net.Listen("tcp", address) })
	return listener, errors.Join(enterErr, err)
}

// inNetwork calls do in another network namespace, on a thread that ends afterwards.
func inNetwork(namespacePath string, do func()) error {
	done := make(chan error)
	go func() {
		// The thread is never unlocked, so that it ends with the goroutine: no other goroutine may run in that namespace.
		runtime.LockOSThread()
		err := enter(namespacePath)
		if err == nil {
			do()
		}
		done <- err
	}()
	return <-done
}

func enter(namespacePath string) error {
	namespace, err := os.Open(namespacePath)
	if err != nil {
		return err
	}
	defer namespace.Close()
	return os.NewSyscallError("setns", unix.Setns(int(namespace.Fd()), unix.CLONE_NEWNET))
}
