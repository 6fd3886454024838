package standalone

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/utils/clock"
	clocktesting "k8s.io/utils/clock/testing"
)

// TestRenewal has certificates that end soon replaced under a running authority: what it serves with, what its kubeconfig
// holds, and what the node beside it has. Nobody starts anything again.
func TestRenewal(t *testing.T) {
	t.Parallel()
	a := start(t)
	node, err := a.EnsureNode("here", []net.IP{net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	files := []string{a.Kubeconfig(), a.dir.ServingCert(), a.dir.NodeClientCert(), node.ServingCert, filepath.Join(a.DataDir(), "node.crt")}
	before, presented := contents(t, files), presents(t, a)
	if err := a.certs.renew(clock.RealClock{}); err != nil {
		t.Fatal(err)
	}
	for i, text := range contents(t, files) {
		if !bytes.Equal(text, before[i]) {
			t.Errorf("%s was renewed long before its end", files[i])
		}
	}
	if err := a.certs.renew(clocktesting.NewFakePassiveClock(time.Now().Add(300 * 24 * time.Hour))); err != nil {
		t.Fatal(err)
	}
	for i, text := range contents(t, files) {
		if bytes.Equal(text, before[i]) {
			t.Errorf("%s was not renewed", files[i])
		}
	}
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(time.Minute); presents(t, a).Equal(presented); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatal("the authority does not serve with its new certificate")
		}
	}
	if config, err := clientcmd.BuildConfigFromFlags("", node.Kubeconfig); err != nil || config.CertFile != filepath.Join(a.DataDir(), "node.crt") {
		t.Errorf("the node's kubeconfig %+v, %v", config, err)
	}
}

// TestRenewalKeepsTheCA makes no new CA under an authority that trusts the old one.
func TestRenewalKeepsTheCA(t *testing.T) {
	t.Parallel()
	a := start(t)
	for _, file := range []string{a.dir.CACert(), a.dir.CAKey(), a.dir.ServingCert()} {
		if err := os.Remove(file); err != nil {
			t.Fatal(err)
		}
	}
	if err := a.certs.renew(clock.RealClock{}); err == nil || !strings.Contains(err.Error(), "start it again") {
		t.Errorf("renewed with a CA that was taken away: %v", err)
	}
	for _, file := range []string{a.dir.CACert(), a.dir.ServingCert()} {
		if _, err := os.Stat(file); !os.IsNotExist(err) {
			t.Errorf("%s was made: %v", file, err)
		}
	}
}

func start(t *testing.T) *Authority {
	t.Helper()
	// Not the test's context, which ends before the authority is stopped in order.
	a, err := Start(context.Background(), Config{DataDir: t.TempDir(), BindAddress: "127.0.0.1", Log: io.Discard, UnsafeNoFsync: true, Unannounced: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := a.Stop(); err != nil {
			t.Error(err)
		}
	})
	return a
}

func contents(t *testing.T, files []string) [][]byte {
	t.Helper()
	var all [][]byte
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, text)
	}
	return all
}

// presents is the certificate that the authority serves with.
func presents(t *testing.T, a *Authority) *x509.Certificate {
	t.Helper()
	connection, err := tls.Dial("tcp", strings.TrimPrefix(a.URL, "https://"), &tls.Config{InsecureSkipVerify: true})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = connection.Close() }()
	return connection.ConnectionState().PeerCertificates[0]
}
