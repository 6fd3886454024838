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

// authority is where the API server is, as pods and this machine see it.
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

// env is how clients in a pod find the authority: as if it were the service "kubernetes" in "default".
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

// localAddress is the address of this machine from which it reaches the authority: where the authority can reach it, unless
// something between the two translates addresses.
func (a authority) localAddress(ctx context.Context) (net.IP, error) {
	dialer := net.Dialer{Timeout: 10 * time.Second}
	conn, err := dialer.DialContext(ctx, "tcp", a.address())
	if err != nil {
		return nil, fmt.Errorf("reach the authority: %w", err)
	}
	defer conn.Close()
	local, ok := conn.LocalAddr().(*net.TCPAddr)
	if !ok {
		return nil, errors.New("the connection to the authority is not one of TCP")
	}
	return local.IP, nil
}

// relays let pods reach an authority that listens on this machine's loopback address alone, as `lanyard up` does by
// default: each network namespace has a loopback of its own, so in each pod's the agent listens at the authority's address
// and passes on what arrives. What it carries is TLS between the pod and the authority.
type relays struct {
	address string // host:port of the authority
	dialer  net.Dialer
	places  chan struct{} // of all pods

	mu   sync.Mutex
	open map[string]*relay // by sandbox
}

const (
	// maxRelayed bounds the connections of one pod.
	maxRelayed = 256

	// Each connection takes two file descriptors of the agent, and a third of an authority in the same process. All pods
	// together take at most half of what the process may have.
	descriptorsEach = 6
	mostRelayed     = 8192
)

// allRelayed is how many connections of all pods there may be.
func allRelayed() int {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return maxRelayed
	}
	return int(min(max(limit.Cur/descriptorsEach, maxRelayed), mostRelayed))
}

func newRelays(address string) *relays {
	return &relays{
		address: address, dialer: net.Dialer{Timeout: 10 * time.Second}, places: make(chan struct{}, allRelayed()), open: map[string]*relay{},
	}
}

// isNeeded tells whether pods cannot reach the authority at host by themselves.
func isNeeded(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// Open listens in a sandbox's network namespace, unless that is done already.
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
	one := &relay{listener: listener, dial: r.dial, cancel: cancel, places: make(chan struct{}, maxRelayed), shared: r.places}
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

// relay carries the connections of one pod.
type relay struct {
	listener net.Listener
	dial     func(context.Context) (net.Conn, error)
	cancel   context.CancelFunc
	// A connection takes a place of the pod's, and one that all pods share.
	places, shared chan struct{}
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
			case <-time.After(100 * time.Millisecond): // as with too many open files
			}
			continue
		}
		if !take(r.places, r.shared) {
			_ = conn.Close()
			continue
		}
		go func() {
			defer func() { <-r.places; <-r.shared }()
			r.carry(ctx, conn)
		}()
	}
}

// take takes a place of each, or none.
func take(places, shared chan struct{}) bool {
	select {
	case places <- struct{}{}:
	default:
		return false
	}
	select {
	case shared <- struct{}{}:
		return true
	default:
		<-places
		return false
	}
}

func (r *relay) carry(ctx context.Context, pod net.Conn) {
	defer pod.Close()
	authority, err := r.dial(ctx)
	if err != nil {
		return // the pod sees a connection that is closed, and tries again
	}
	defer authority.Close()
	defer context.AfterFunc(ctx, func() { _, _ = pod.Close(), authority.Close() })()
	var both sync.WaitGroup
	both.Go(func() { pass(authority, pod) })
	both.Go(func() { pass(pod, authority) })
	both.Wait()
}

// pass copies until from ends, and then says so to to.
func pass(to, from net.Conn) {
	_, err := io.Copy(to, from)
	if half, ok := to.(interface{ CloseWrite() error }); ok && err == nil {
		_ = half.CloseWrite()
		return
	}
	_, _ = to.Close(), from.Close()
}

// listenIn listens in another network namespace. A socket belongs for good to the namespace it was made in, so only its
// making happens there.
func listenIn(namespacePath, address string) (listener net.Listener, err error) {
	enterErr := inNetwork(namespacePath, func() { listener, err = net.Listen("tcp", address) })
	return listener, errors.Join(enterErr, err)
}

// inNetwork calls do in another network namespace, on a thread that ends with it.
func inNetwork(namespacePath string, do func()) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlock: the thread must not serve others afterwards
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
