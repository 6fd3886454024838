package nodeclient

import (
	"cmp"
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"lanyard.dev/internal/nodeaccess"
	"lanyard.dev/internal/pki"
)

// dialTimeout bounds the time for connecting, and the time for the TLS handshake after it.
const dialTimeout = 10 * time.Second

// Config names PEM files. They are read for each connection, so a change needs no restart.
type Config struct {
	// CertFile and KeyFile are the client certificate by which nodes identify the authority.
	CertFile, KeyFile string
	// CAFile holds the CAs of the nodes' serving certificates.
	CAFile string
}

// Validate returns every fault of the configuration. path is the path of the configuration. A configuration without any file is
// valid: the authority then does not connect to nodes.
func (c Config) Validate(path *field.Path) field.ErrorList {
	var faults field.ErrorList
	for _, other := range []struct{ name, value string }{{"keyFile", c.KeyFile}, {"caFile", c.CAFile}} {
		if (c.CertFile == "") == (other.value == "") {
			continue
		}
		missing := "certFile"
		if other.value == "" {
			missing = other.name
		}
		faults = append(faults, field.Required(path.Child(missing),
			fmt.Sprintf("`%v` and `%v` go together", path.Child("certFile"), path.Child(other.name))))
	}
	return faults
}

// Nodes returns the current state of a Node.
type Nodes func(ctx context.Context, name string) (*corev1.Node, error)

// Admits returns an error if a certificate of a node is not accepted because of its NotBefore.
type Admits func(node string, notBefore time.Time) error

// Client connects to nodes. A nil Client is valid: its Connect returns an error that names the missing flags.
type Client struct {
	config Config
	nodes  Nodes
	admits Admits
}

// New returns a client, or nil if nothing is configured. It reads the files once, to report a fault in them at the start.
func New(c Config, nodes Nodes, admits Admits) (*Client, error) {
	if c == (Config{}) {
		return nil, nil
	}
	if _, err := c.load(); err != nil {
		return nil, err
	}
	return &Client{config: c, nodes: nodes, admits: admits}, nil
}

// Connection is a connection to one node, for one session.
type Connection struct {
	// Host is the address and the port of the node.
	Host string
	// Transport makes TLS connections to Host that end with the session's context.
	Transport *http.Transport
}

// Connect returns a connection to a node. ctx is the context of the session: when it ends, the connection is closed. The error
// is an API status.
func (c *Client) Connect(ctx context.Context, node string) (*Connection, error) {
	if c == nil {
		return nil, apierrors.NewServiceUnavailable("this authority has no credentials for nodes: " +
			"it needs --kubelet-client-certificate, --kubelet-client-key and --kubelet-certificate-authority")
	}
	found, err := c.nodes(ctx, node)
	if err != nil {
		return nil, err
	}
	host, err := endpoint(found)
	if err != nil {
		return nil, apierrors.NewServiceUnavailable(err.Error())
	}
	security, err := c.config.load()
	if err != nil {
		return nil, apierrors.NewInternalError(err)
	}
	return &Connection{Host: host, Transport: c.transport(ctx, node, security)}, nil
}

// endpoint returns the address and the port that a node reports.
func endpoint(node *corev1.Node) (string, error) {
	port := node.Status.DaemonEndpoints.KubeletEndpoint.Port
	if port <= 0 || port > 65535 {
		return "", fmt.Errorf("node %s reports no port (status.daemonEndpoints.kubeletEndpoint)", node.Name)
	}
	if len(node.Status.Addresses) == 0 {
		return "", fmt.Errorf("node %s reports no address (status.addresses)", node.Name)
	}
	address := node.Status.Addresses[0].Address
	internal := slices.IndexFunc(node.Status.Addresses, func(a corev1.NodeAddress) bool { return a.Type == corev1.NodeInternalIP })
	if internal >= 0 {
		address = node.Status.Addresses[internal].Address
	}
	host := net.JoinHostPort(address, strconv.Itoa(int(port)))
	// A node may write any address into its status. The library requires one that can be part of a URL.
	if parsed, err := url.Parse("https://" + host); err != nil || parsed.Host != host {
		return "", fmt.Errorf("node %s reports the address %q, which cannot be the host of a URL (status.addresses)", node.Name, address)
	}
	return host, nil
}

// load reads the files.
func (c Config) load() (*tls.Config, error) {
	certificate, err := pki.ReadKeyPair(c.CertFile, c.KeyFile)
	if err != nil {
		return nil, fmt.Errorf("client certificate for nodes %s with key %s: %w", c.CertFile, c.KeyFile, err)
	}
	roots, err := pki.ReadRoots(c.CAFile)
	if err != nil {
		return nil, fmt.Errorf("CA of nodes: %w", err)
	}
	return &tls.Config{
		MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{certificate}, RootCAs: roots,
		NextProtos: []string{"http/1.1"},
	}, nil
}

// transport returns a transport for one session. Sessions do not share connections: they are few, and each lasts long.
func (c *Client) transport(ctx context.Context, node string, security *tls.Config) *http.Transport {
	s := &session{ctx: ctx}
	security.VerifyConnection = func(state tls.ConnectionState) error {
		if err := verifyName(node, state); err != nil {
			return err
		}
		if err := c.admits(node, state.PeerCertificates[0].NotBefore); err != nil {
			return err
		}
		return s.removeDeadline()
	}
	return &http.Transport{DialContext: s.dial, TLSClientConfig: security, DisableKeepAlives: true, DisableCompression: true}
}

// verifyName returns an error unless the certificate names the node. The certificate itself has been verified before.
func verifyName(node string, state tls.ConnectionState) error {
	subject := state.PeerCertificates[0].Subject
	name, ok := nodeaccess.Identify(subject.CommonName, subject.Organization)
	if !ok || name != node || len(subject.Organization) != 1 {
		return fmt.Errorf("the certificate that node %s presented belongs to %q", node, cmp.Or(subject.CommonName, "no name"))
	}
	return nil
}

// session opens the connection of one session.
type session struct {
	ctx context.Context

	mu   sync.Mutex
	conn net.Conn
}

// dial connects within dialTimeout. The connection has a deadline until the TLS handshake is complete. It is closed when the
// session ends, even if its user has hijacked it for another protocol.
func (s *session) dial(ctx context.Context, network, address string) (net.Conn, error) {
	conn, err := (&net.Dialer{Timeout: dialTimeout}).DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	if err := conn.SetDeadline(time.Now().Add(dialTimeout)); err != nil {
		_ = conn.Close()
		return nil, err
	}
	s.mu.Lock()
	s.conn = conn
	s.mu.Unlock()
	return &sessionConn{Conn: conn, stop: context.AfterFunc(s.ctx, func() { _ = conn.Close() })}, nil
}

// removeDeadline removes the deadline of the handshake.
func (s *session) removeDeadline() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conn == nil {
		return nil
	}
	return s.conn.SetDeadline(time.Time{})
}

// sessionConn is a connection that is closed when its session ends.
type sessionConn struct {
	net.Conn
	stop func() bool // stops waiting for the end of the session
}

// Close implements net.Conn.
func (c *sessionConn) Close() error {
	c.stop()
	return c.Conn.Close()
}
