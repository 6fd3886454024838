package members

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"time"

	"go.etcd.io/etcd/client/pkg/v3/transport"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	utilnet "k8s.io/apimachinery/pkg/util/net"
	"k8s.io/apiserver/pkg/server/egressselector"
	"k8s.io/klog/v2"
)

// timing is how often and how long members are probed. A member that hangs is used for at most timeout and interval: three
// seconds. If it is the leader, it takes up to two more until the others have elected a new leader.
type timing struct {
	// timeout is how long a member may take to respond, and interval the time from one probe to the next.
	timeout, interval time.Duration
}

var defaultTiming = timing{timeout: 2 * time.Second, interval: time.Second}

// Config names an etcd and the credentials for it, as the configuration of the storage does.
type Config struct {
	// Endpoints are the members, each as an http or https URL or as host and port.
	Endpoints                 []string
	CAFile, CertFile, KeyFile string
	// Key is the key that probes read. It need not exist.
	Key string
}

// Members are the members of one etcd.
type Members struct {
	byAddress map[string]*member
	key       string
	timing    timing
}

// New returns the members of an etcd. It does not connect to them. It returns nil if there is only one member, because then
// there is no other to use instead, and if an endpoint is a unix socket, because a local process is not cut off.
func New(c Config) (*Members, error) {
	m := &Members{byAddress: map[string]*member{}, key: c.Key, timing: defaultTiming}
	for _, endpoint := range c.Endpoints {
		address, ok := addressOf(endpoint)
		if !ok {
			return nil, nil
		}
		m.byAddress[address] = nil
	}
	if len(m.byAddress) < 2 {
		return nil, nil
	}
	config := clientv3.Config{DialKeepAliveTime: 10 * time.Second, DialKeepAliveTimeout: defaultTiming.timeout, Logger: zap.NewNop()}
	files := transport.TLSInfo{TrustedCAFile: c.CAFile, CertFile: c.CertFile, KeyFile: c.KeyFile}
	if c.CAFile != "" || c.CertFile != "" || c.KeyFile != "" {
		var err error
		if config.TLS, err = files.ClientConfig(); err != nil {
			return nil, fmt.Errorf("etcd client certificate: %w", err)
		}
	}
	for _, endpoint := range c.Endpoints {
		address, _ := addressOf(endpoint)
		config.Endpoints = []string{endpoint}
		client, err := clientv3.New(config)
		if err != nil {
			m.Close()
			return nil, fmt.Errorf("probe of etcd %s: %w", address, err)
		}
		m.byAddress[address] = newMember(address, client)
	}
	return m, nil
}

// addressOf returns the address that the etcd client dials for an endpoint; false for a unix socket.
func addressOf(endpoint string) (string, bool) {
	if strings.HasPrefix(endpoint, "unix") {
		return "", false
	}
	if _, address, ok := strings.Cut(endpoint, "://"); ok {
		return strings.TrimSuffix(address, "/"), true
	}
	return endpoint, true
}

// Lookup returns the dialer for the storage's connections.
func (m *Members) Lookup(egressselector.NetworkContext) (utilnet.DialFunc, error) { return m.dial, nil }

// dial connects to an address. For a member that is not usable it waits until the member is.
func (m *Members) dial(ctx context.Context, network, address string) (net.Conn, error) {
	var dialer net.Dialer
	known := m.byAddress[address]
	if known == nil {
		return dialer.DialContext(ctx, network, address)
	}
	if err := known.awaitUsable(ctx); err != nil {
		return nil, err
	}
	conn, err := dialer.DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	return known.track(conn), nil
}

// Run probes every member until ctx ends, and then frees the probes' connections. It must run once.
func (m *Members) Run(ctx context.Context) {
	defer m.Close()
	var running sync.WaitGroup
	for _, one := range m.byAddress {
		running.Go(func() { m.probeRegularly(ctx, one) })
	}
	running.Wait()
}

// Close frees the connections of the probes, if Run is not called.
func (m *Members) Close() {
	for _, one := range m.byAddress {
		if one != nil {
			_ = one.client.Close()
		}
	}
}

// probeRegularly probes one member until ctx ends.
func (m *Members) probeRegularly(ctx context.Context, one *member) {
	pause := time.NewTicker(m.timing.interval)
	defer pause.Stop()
	for ctx.Err() == nil {
		began := time.Now()
		err := one.probe(ctx, m.key, m.timing.timeout)
		if ctx.Err() != nil {
			return
		}
		if err == nil {
			one.recordResponse(time.Now())
		} else {
			one.recordSilence(began)
		}
		m.dropSilent()
		select {
		case <-ctx.Done():
		case <-pause.C:
		}
	}
}

// dropSilent stops the use of each member that has been silent for the timeout of a probe, if another member has responded
// since then. If no member responds, etcd as a whole is busy or unavailable, and no connection is better than the others.
func (m *Members) dropSilent() {
	for _, one := range m.byAddress {
		since, ok := one.silence()
		if !ok || time.Since(since) < m.timing.timeout || !m.respondedAfter(since) {
			continue
		}
		if one.drop() {
			klog.InfoS("An etcd member does not respond; its connections are closed until it does", "member", one.address)
		}
	}
}

func (m *Members) respondedAfter(since time.Time) bool {
	for _, one := range m.byAddress {
		if one.response().After(since) {
			return true
		}
	}
	return false
}

// isSilence reports whether the error of a probe means that the member did not respond or has no leader. Any other error is
// a response.
func isSilence(err error) bool {
	if errors.Is(err, context.DeadlineExceeded) {
		return true
	}
	code := status.Code(err)
	return code == codes.Unavailable || code == codes.DeadlineExceeded
}
