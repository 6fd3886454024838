package nodeclient

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"lanyard.dev/internal/pki"
)

func files(t *testing.T) (Config, *pki.Authority) {
	t.Helper()
	dir := t.TempDir()
	c := Config{CertFile: filepath.Join(dir, "client.crt"), KeyFile: filepath.Join(dir, "client.key"), CAFile: filepath.Join(dir, "ca.crt")}
	ca, err := pki.EnsureAuthority(c.CAFile, filepath.Join(dir, "ca.key"), "ca", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ca.EnsureClient(c.CertFile, c.KeyFile, "client", nil, time.Now()); err != nil {
		t.Fatal(err)
	}
	return c, ca
}

func node(port int32, addresses ...corev1.NodeAddress) *corev1.Node {
	n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n"}}
	n.Status.Addresses, n.Status.DaemonEndpoints.KubeletEndpoint.Port = addresses, port
	return n
}

// TestEndpoint checks which address and port of a node are used, and the errors if there is none.
func TestEndpoint(t *testing.T) {
	t.Parallel()
	internal, host := corev1.NodeAddress{Type: corev1.NodeInternalIP, Address: "10.0.0.1"}, corev1.NodeAddress{Type: corev1.NodeHostName, Address: "host"}
	six := corev1.NodeAddress{Type: corev1.NodeInternalIP, Address: "fd00::1"}
	for name, test := range map[string]struct {
		node        *corev1.Node
		want, fault string
	}{
		"internal first": {node(1, host, internal, six), "10.0.0.1:1", ""},
		"any":            {node(1, host), "host:1", ""},
		"IPv6":           {node(65535, six), "[fd00::1]:65535", ""},
		"no port":        {node(0, internal), "", "reports no port"},
		"bad port":       {node(65536, internal), "", "reports no port"},
		"no address":     {node(1), "", "reports no address"},
		"no host":        {node(1, corev1.NodeAddress{Type: corev1.NodeInternalIP, Address: "["}), "", "cannot be the host of a URL"},
		"a user":         {node(1, corev1.NodeAddress{Type: corev1.NodeInternalIP, Address: "root@10.0.0.1"}), "", "cannot be the host of a URL"},
		"a path":         {node(1, corev1.NodeAddress{Type: corev1.NodeInternalIP, Address: "10.0.0.1/x?"}), "", "cannot be the host of a URL"},
	} {
		got, err := endpoint(test.node)
		if got != test.want || (err == nil) != (test.fault == "") || err != nil && !strings.Contains(err.Error(), test.fault) {
			t.Errorf("%s: got %s, %v", name, got, err)
		}
	}
}

// TestVerifyName checks that only a certificate of the node itself is accepted.
func TestVerifyName(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name   string
		groups []string
		ok     bool
	}{
		{"system:node:n", []string{"system:nodes"}, true},
		{"system:node:m", []string{"system:nodes"}, false},
		{"system:node:", []string{"system:nodes"}, false},
		{"n", []string{"system:nodes"}, false},
		{"system:node:n", nil, false},
		{"system:node:n", []string{"system:masters"}, false},
		{"system:node:n", []string{"system:nodes", "system:masters"}, false},
		{"system:node:n.example.com", []string{"system:nodes"}, false},
		{"", nil, false},
	} {
		cert := &x509.Certificate{Subject: pkix.Name{CommonName: test.name, Organization: test.groups}}
		if err := verifyName("n", tls.ConnectionState{PeerCertificates: []*x509.Certificate{cert}}); (err == nil) != test.ok {
			t.Errorf("%s of %v: %v", test.name, test.groups, err)
		}
	}
}

func anyCertificate(string, time.Time) error { return nil }

// TestConfig checks which combinations of files are valid, and that New reports unreadable files.
func TestConfig(t *testing.T) {
	t.Parallel()
	whole, _ := files(t)
	path := field.NewPath("nodes")
	if client, err := New(Config{}, nil, nil); client != nil || err != nil {
		t.Errorf("no configuration: %v, %v", client, err)
	}
	for name, change := range map[string]func(*Config){
		"no key":  func(c *Config) { c.KeyFile = "" },
		"no CA":   func(c *Config) { c.CAFile = "" },
		"neither": func(c *Config) { c.CertFile, c.KeyFile = "", "" },
	} {
		c := whole
		change(&c)
		if len(c.Validate(path)) == 0 {
			t.Errorf("%s is valid", name)
		}
	}
	if faults := append(whole.Validate(path), Config{}.Validate(path)...); len(faults) > 0 {
		t.Error(faults)
	}
	for name, change := range map[string]func(*Config){
		"missing":    func(c *Config) { c.CertFile += "x" },
		"no CA file": func(c *Config) { c.CAFile += "x" },
		"key for CA": func(c *Config) { c.CAFile = c.KeyFile },
	} {
		c := whole
		change(&c)
		if _, err := New(c, nil, nil); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

// TestConnect checks the errors without a configuration and without a node.
func TestConnect(t *testing.T) {
	t.Parallel()
	var none *Client
	if _, err := none.Connect(t.Context(), "n"); !apierrors.IsServiceUnavailable(err) || !strings.Contains(err.Error(), "--kubelet-client-certificate") {
		t.Errorf("without configuration: %v", err)
	}
	c, _ := files(t)
	gone := apierrors.NewNotFound(corev1.Resource("nodes"), "n")
	client, err := New(c, func(context.Context, string) (*corev1.Node, error) { return nil, gone }, anyCertificate)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := client.Connect(t.Context(), "n"); !errors.Is(err, gone) {
		t.Errorf("no node: %v", err)
	}
}

// TestConnectionEndsWithItsSession connects to a node that never sends anything. Reading ends when the session ends.
func TestConnectionEndsWithItsSession(t *testing.T) {
	t.Parallel()
	c, _ := files(t)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = listener.Close() }()
	port := int32(listener.Addr().(*net.TCPAddr).Port)
	client, err := New(c, func(context.Context, string) (*corev1.Node, error) {
		return node(port, corev1.NodeAddress{Type: corev1.NodeInternalIP, Address: "127.0.0.1"}), nil
	}, anyCertificate)
	if err != nil {
		t.Fatal(err)
	}
	ctx, end := context.WithCancel(t.Context())
	connection, err := client.Connect(ctx, "n")
	if err != nil {
		t.Fatal(err)
	}
	conn, err := connection.Transport.DialContext(t.Context(), "tcp", connection.Host)
	if err != nil {
		t.Fatal(err)
	}
	end()
	if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
		t.Errorf("reading after the session: %v", err)
	}
}
