package nodeclient

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"lanyard.dev/internal/nodeaccess"
)

// dialTimeout bounds connecting, and then the TLS handshake.
const dialTimeout = 10 * time.Second

// Config names the files, in PEM. They are read for each connection, so that new ones count without a restart.
type Config struct {
	// CertFile and KeyFile are the client certificate that nodes know the authority by.
	CertFile, KeyFile string
	// CAFile holds the CAs of the nodes' serving certificates.
	CAFile string
}

// Validate returns every fault of the configuration, which is at path. A configuration without any file is valid: the authority
// then connects to no node.
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

// Nodes finds a Node as it is now.
type Nodes func(ctx context.Context, name string) (*corev1.Node, error)

// Admits tells whether a certificate of a node still counts, by its NotBefore.
type Admits func(node string, notBefore time.Time) error

// Client connects to nodes. A nil Client connects to none and says so.
type Client struct {
	config Config
	nodes  Nodes
	admits Admits
}

// New returns a client, nil if nothing is configured. It reads the files once, so that bad ones are known at once.
func New(c Config, nodes Nodes, admits Admits) (*Client, error) {
	if c == (Config{}) {
		return nil, nil
	}
	if _, err := c.load(); err != nil {
		return nil, err
	}
	return &Client{config: c, nodes: nodes, admits: admits}, nil
}

// Connection is the way to one node, for one session.
type Connection struct {
	// Host is address and port.
	Host string
	// Transport makes TLS connections to Host that end with the session's context.
	Transport *http.Transport
}

// Connect returns the way to a node. What is opened on it is closed when ctx, that of the session, ends. The error is one
// of the API's.
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

// endpoint is where a node says it is reached.
func endpoint(node *corev1.Node) (string, error) {
	port := node.Status.DaemonEndpoints.KubeletEndpoint.Port
	if port <= 0 || port > 65535 {
		return "", fmt.Errorf("node %s says no port to reach it at (status.daemonEndpoints.kubeletEndpoint)", node.Name)
	}
	if len(node.Status.Addresses) == 0 {
		return "", fmt.Errorf("node %s says no address to reach it at (status.addresses)", node.Name)
	}
	address := node.Status.Addresses[0].Address
	internal := slices.IndexFunc(node.Status.Addresses, func(a corev1.NodeAddress) bool { return a.Type == corev1.NodeInternalIP })
	if internal >= 0 {
		address = node.Status.Addresses[internal].Address
	}
	host := net.JoinHostPort(address, strconv.Itoa(int(port)))
	// What a node says is in no way checked when it is written, and the library cannot do with a URL that is none.
	if parsed, err := url.Parse("https://" + host); err != nil || parsed.Host != host {
		return "", fmt.Errorf("node %s says that it is at %q, which is no host of a URL (status.addresses)", node.Name, address)
	}
	return host, nil
}

func (c Config) load() (*tls.Config, error) {
	certificate, err := tls.LoadX509KeyPair(c.CertFile, c.KeyFile)
	if err != nil {
		return nil, fmt.Errorf("client certificate for nodes %s with key %s: %w", c.CertFile, c.KeyFile, err)
	}
	bundle, err := os.ReadFile(c.CAFile)
	if err != nil {
		return nil, fmt.Errorf("CA of nodes: %w", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(bundle) {
		return nil, fmt.Errorf("CA of nodes %s: it holds no certificate", c.CAFile)
	}
	return &tls.Config{
		MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{certificate}, RootCAs: roots,
		NextProtos: []string{"http/1.1"},
	}, nil
}

// transport makes connections for one session; they are too few, and last too long, to be shared.
func (c *Client) transport(ctx context.Context, node string, security *tls.Config) *http.Transport {
	s := &session{ctx: ctx}
	security.VerifyConnection = func(state tls.ConnectionState) error {
		if err := names(node, state); err != nil {
			return err
		}
		if err := c.admits(node, state.PeerCertificates[0].NotBefore); err != nil {
			return err
		}
		return s.established()
	}
	return &http.Transport{DialContext: s.dial, TLSClientConfig: security, DisableKeepAlives: true, DisableCompression: true}
}

// names refuses a certificate that is not the node's own. That it is a valid one was verified before.
func names(node string, state tls.ConnectionState) error {
	subject := state.PeerCertificates[0].Subject
	name, ok := nodeaccess.Identify(subject.CommonName, subject.Organization)
	if !ok || name != node || len(subject.Organization) != 1 {
		return fmt.Errorf("the certificate at node %s is that of %q", node, cmp.Or(subject.CommonName, "nobody"))
	}
	return nil
}
