// Fixture: an etcd of three members and replicas of an authority on it, each a process that can be killed and started again.

package systemtest

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.etcd.io/etcd/server/v3/embed"
	"k8s.io/client-go/rest"

	"lanyard.dev/internal/pki"
	"lanyard.dev/internal/signingkey"
)

// memberCommand is a command that the program has in tests only: one member of an etcd.
const memberCommand = "etcd-member"

// runMember runs a member until the process is killed. Its arguments are the name, the directory, the URLs for clients and peers, and
// the URLs of all members.
func runMember(args []string) (code int) {
	client, peer := mustURL(args[2]), mustURL(args[3])
	c := embed.NewConfig()
	c.Name, c.Dir, c.InitialCluster = args[0], args[1], args[4]
	c.ListenClientUrls, c.AdvertiseClientUrls = []url.URL{client}, []url.URL{client}
	c.ListenPeerUrls, c.AdvertisePeerUrls = []url.URL{peer}, []url.URL{peer}
	c.LogLevel = "error"
	// A process that is killed leaves what it has written to the operating system.
	c.UnsafeNoFsync = true
	member, err := embed.StartEtcd(c)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	fmt.Fprintln(os.Stderr, <-member.Err())
	return 1
}

func mustURL(text string) url.URL {
	u, err := url.Parse(text)
	if err != nil {
		panic(err)
	}
	return *u
}

// child is a process of a replicaSite.
type child struct {
	log  string
	args []string

	mu      sync.Mutex
	process *program
	// started is when the current process was started.
	started time.Time
}

func (c *child) start(t testing.TB) {
	t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.started = time.Now()
	c.process = startProgram(t, c.log, c.args...)
}

// startedAt returns when the current process was started.
func (c *child) startedAt() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.started
}

func (c *child) end(t testing.TB, signal syscall.Signal) {
	t.Helper()
	_, _ = c.process.end(t, signal)
}

// pause stops the process for some time.
func (c *child) pause(t testing.TB, d time.Duration) {
	t.Helper()
	if err := c.process.process.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	time.Sleep(d)
	if err := c.process.process.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
}

// replica is one authority of a replicaSite.
type replica struct {
	child
	number int
	config *rest.Config // of an administrator
	// admin makes requests of the administrator, and anyone requests without a credential.
	admin, anyone *caller
}

// replicaSite is an etcd of three members, and replicas of an authority.
type replicaSite struct {
	dir      string
	members  []*child
	replicas []*replica
}

const siteIssuer = "https://issuer.example"

// newReplicaSite starts three members and prepares three replicas.
func newReplicaSite(t testing.TB) *replicaSite {
	t.Helper()
	s := &replicaSite{dir: t.TempDir()}
	admin := s.writeFiles(t)
	ports := freePorts(t, 9)
	var names, endpoints []string
	for i := range 3 {
		names = append(names, fmt.Sprintf("m%d=http://127.0.0.1:%d", i, ports[3+i]))
		endpoints = append(endpoints, fmt.Sprintf("http://127.0.0.1:%d", ports[i]))
	}
	for i := range 3 {
		name, peer, _ := strings.Cut(names[i], "=")
		m := &child{log: s.file(name + ".log"), args: []string{memberCommand, name, s.file(name), endpoints[i], peer, strings.Join(names, ",")}}
		m.start(t)
		s.members = append(s.members, m)
	}
	for i := range 3 {
		r := &replica{number: i, config: rest.CopyConfig(admin)}
		r.config.Host = fmt.Sprintf("https://127.0.0.1:%d", ports[6+i])
		r.log = s.file(fmt.Sprintf("replica-%d.log", i))
		r.args = []string{
			"serve", "--bind-address", "127.0.0.1", "--secure-port", fmt.Sprint(ports[6+i]), "--etcd-servers", strings.Join(endpoints, ","),
			"--tls-cert-file", s.file("tls.crt"), "--tls-private-key-file", s.file("tls.key"), "--client-ca-file", s.file("ca.crt"),
			"--root-ca-file", s.file("ca.crt"), "--service-account-issuer", siteIssuer, "--service-account-signing-key-file", s.file("sa.key"),
		}
		r.admin, r.anyone = callerFor(t, r.config), overHTTP1(t, r.config)
		s.replicas = append(s.replicas, r)
	}
	return s
}

func (s *replicaSite) file(name string) string { return filepath.Join(s.dir, name) }

// writeFiles creates the certificates and keys of the replicas. It returns the configuration of an administrator.
func (s *replicaSite) writeFiles(t testing.TB) *rest.Config {
	t.Helper()
	now := time.Now()
	ca, err := pki.EnsureAuthority(s.file("ca.crt"), s.file("ca.key"), "test", now)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ca.EnsureServing(s.file("tls.crt"), s.file("tls.key"), pki.ServingNames("localhost", "127.0.0.1"), now); err != nil {
		t.Fatal(err)
	}
	admin, err := ca.NewClient("admin", []string{"system:masters"}, now)
	if err != nil {
		t.Fatal(err)
	}
	key, err := signingkey.Generate(signingkey.ES256)
	if err != nil {
		t.Fatal(err)
	}
	data, err := key.MarshalPEM()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(s.file("sa.key"), data, 0o600); err != nil {
		t.Fatal(err)
	}
	c := &rest.Config{QPS: -1}
	c.CAData, c.CertData, c.KeyData = ca.CertPEM(), admin.CertPEM, admin.KeyPEM
	return c
}

// awaitReady returns when the replicas are ready.
func awaitReady(t testing.TB, replicas ...*replica) {
	t.Helper()
	for _, r := range replicas {
		eventually(t, fmt.Sprint("replica ", r.number, " is ready"), func(ctx context.Context) bool {
			got, err := r.anyone.try(ctx, http.MethodGet, "/readyz", nil)
			return err == nil && got.code == http.StatusOK
		})
	}
}

// freePorts returns free ports of the loopback interface.
func freePorts(t testing.TB, n int) []int {
	t.Helper()
	var ports []int
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = l.Close() }()
		ports = append(ports, l.Addr().(*net.TCPAddr).Port)
	}
	return ports
}
