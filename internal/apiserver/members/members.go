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

// pace is how members are probed. Together its parts bound the time for which a hung member is used: three seconds, or
// five where it led and the others must elect first.
type pace struct {
	// timeout is how long a member may take to answer one read, and every the time from one to the next.
	timeout, every time.Duration
}

var usualPace = pace{timeout: 2 * time.Second, every: time.Second}

// Config says which etcd it is, as the storage's own configuration does.
type Config struct {
	// Endpoints are the members, each an http or https URL, or host and port.
	Endpoints                 []string
	CAFile, CertFile, KeyFile string
	// Key is read from each member; it need not exist.
	Key string
}

// Members are the members of one etcd.
type Members struct {
	byAddress map[string]*member
	key       string
	pace      pace
}

// New connects to nothing yet. It returns nil where there is no other member to use instead, or where a member is
// reached by a unix socket: what is on this machine is not cut off from it.
func New(c Config) (*Members, error) {
	m := &Members{byAddress: map[string]*member{}, key: c.Key, pace: usualPace}
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
	config := clientv3.Config{DialKeepAliveTime: 10 * time.Second, DialKeepAliveTimeout: usualPace.timeout, Logger: zap.NewNop()}
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
			m.close()
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
	return known.keep(conn), nil
}

// Run probes every member until ctx ends, and then frees the probes' connections. It must run once.
func (m *Members) Run(ctx context.Context) {
	defer m.close()
	var running sync.WaitGroup
	for _, one := range m.byAddress {
		running.Go(func() { m.watch(ctx, one) })
	}
	running.Wait()
}

func (m *Members) close() {
	for _, one := range m.byAddress {
		if one != nil {
			_ = one.client.Close()
		}
	}
}

func (m *Members) watch(ctx context.Context, one *member) {
	pause := time.NewTicker(m.pace.every)
	defer pause.Stop()
	for ctx.Err() == nil {
		began := time.Now()
		err := one.probe(ctx, m.key, m.pace.timeout)
		if ctx.Err() != nil {
			return
		}
		if err == nil {
			one.answered(time.Now())
		} else {
			one.missed(began)
		}
		m.dropSilent()
		select {
		case <-ctx.Done():
		case <-pause.C:
		}
	}
}

// dropSilent stops the use of each member that has been silent for as long as a probe may take, if another member has
// answered since: where none does, etcd as a whole is busy or away, and there is nothing better to connect to.
func (m *Members) dropSilent() {
	for _, one := range m.byAddress {
		since, ok := one.silentSince()
		if !ok || time.Since(since) < m.pace.timeout || !m.answeredAfter(since) {
			continue
		}
		if one.drop() {
			klog.InfoS("An etcd member does not answer; its connections are closed until it does", "member", one.address)
		}
	}
}

func (m *Members) answeredAfter(since time.Time) bool {
	for _, one := range m.byAddress {
		if one.lastAnswer().After(since) {
			return true
		}
	}
	return false
}

// silent tells the errors of a member that did not answer, or that has no leader to answer with, from answers. Any
// other refusal is an answer.
func silent(err error) bool {
	if errors.Is(err, context.DeadlineExceeded) {
		return true
	}
	code := status.Code(err)
	return code == codes.Unavailable || code == codes.DeadlineExceeded
}
