package standalone

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/utils/clock"
	clocktesting "k8s.io/utils/clock/testing"

	"lanyard.dev/internal/datadir"
	"lanyard.dev/internal/nodeaccess"
)

// TestRenewal checks that certificates which expire soon are replaced while the authority runs: its serving certificate, the
// kubeconfig, and the certificates of the node on the same machine.
func TestRenewal(t *testing.T) {
	t.Parallel()
	now := clocktesting.NewFakeClock(time.Now())
	a := start(t, now)
	node, err := a.EnsureNode("here", []net.IP{net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	files := []string{a.Kubeconfig(), a.dir.ServingCert(), a.dir.NodeClientCert(), filepath.Join(a.DataDir(), "node.crt"), node.ServingCert}
	before, presented := contents(t, files), servingCertificate(t, a)
	// At the first check nothing is due, and at the second, after 300 days, everything is.
	for _, later := range []time.Duration{renewalPeriod, 300 * 24 * time.Hour} {
		eventually(t, "the next check is scheduled", now.HasWaiters)
		now.Step(later)
		if later == renewalPeriod {
			eventually(t, "the first check is done", now.HasWaiters)
			for i, text := range contents(t, files) {
				if !bytes.Equal(text, before[i]) {
					t.Errorf("%s was renewed long before its end", files[i])
				}
			}
		}
	}
	for i, file := range files {
		eventually(t, file+" is renewed", func() bool { return !bytes.Equal(contents(t, files)[i], before[i]) })
	}
	eventually(t, "the authority serves with the new certificate", func() bool { return !servingCertificate(t, a).Equal(presented) })
	if config, err := clientcmd.BuildConfigFromFlags("", node.Kubeconfig); err != nil || config.CertFile != files[3] {
		t.Errorf("the node's kubeconfig %+v, %v", config, err)
	}
}

// TestOwnNodeComesBackAfterItsEviction checks that an authority creates a new certificate for the evicted node of its own
// machine, which could not join otherwise, and that the earlier one is still refused.
func TestOwnNodeComesBackAfterItsEviction(t *testing.T) {
	t.Parallel()
	a := start(t, clock.RealClock{})
	node, err := a.EnsureNode("here", []net.IP{net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	clientOf := func(kubeconfig string) kubernetes.Interface {
		config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
		if err == nil {
			err = rest.LoadTLSFiles(config)
		}
		if err != nil {
			t.Fatal(err)
		}
		config.CertFile, config.KeyFile = "", "" // keep the present content of the files
		return kubernetes.NewForConfigOrDie(config)
	}
	signIn := func(client kubernetes.Interface) error {
		_, err := client.AuthenticationV1().SelfSubjectReviews().Create(t.Context(), &authenticationv1.SelfSubjectReview{}, metav1.CreateOptions{})
		return err
	}
	thief, serving := clientOf(node.Kubeconfig), contents(t, []string{node.ServingCert})[0]
	if err := signIn(thief); err != nil {
		t.Fatal(err)
	}
	secrets := clientOf(a.Kubeconfig()).CoreV1().Secrets(nodeaccess.EvictionNamespace)
	if _, err := secrets.Create(t.Context(), nodeaccess.NewEviction("here"), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := signIn(thief); !apierrors.IsUnauthorized(err) {
		t.Errorf("after the eviction: %v", err)
	}
	if err := a.certs.renew(); err != nil {
		t.Fatal(err)
	}
	// The new certificate is valid from the second after the eviction.
	eventually(t, "the new certificate is accepted", func() bool { return signIn(clientOf(node.Kubeconfig)) == nil })
	if err := signIn(thief); !apierrors.IsUnauthorized(err) {
		t.Errorf("with the earlier certificate: %v", err)
	}
	if bytes.Equal(contents(t, []string{node.ServingCert})[0], serving) {
		t.Error("the node still has the earlier serving certificate")
	}
}

// TestRenewalLeavesTheKubeconfigAlone checks that a renewal does not write the kubeconfig if the administrator's certificate
// has not changed.
func TestRenewalLeavesTheKubeconfigAlone(t *testing.T) {
	t.Parallel()
	a := start(t, clock.RealClock{})
	if err := os.WriteFile(a.Kubeconfig(), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := a.certs.renew(); err != nil {
		t.Fatal(err)
	}
	if text := contents(t, []string{a.Kubeconfig()})[0]; len(text) > 0 {
		t.Errorf("the kubeconfig was written: %d bytes", len(text))
	}
}

// TestRenewalIsTriedAgain checks that a failed renewal, which may leave a key without its certificate, is repeated soon.
func TestRenewalIsTriedAgain(t *testing.T) {
	t.Parallel()
	now := clocktesting.NewFakeClock(time.Now())
	a := start(t, now)
	eventually(t, "the next check is scheduled", now.HasWaiters)
	obstacle := a.dir.NodeClientCert()
	if err := os.Remove(obstacle); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(obstacle, "full"), 0o700); err != nil {
		t.Fatal(err)
	}
	now.Step(renewalPeriod)
	eventually(t, "the next check is scheduled", now.HasWaiters)
	if err := os.RemoveAll(obstacle); err != nil {
		t.Fatal(err)
	}
	now.Step(renewalRetry)
	eventually(t, "the certificate exists again", func() bool {
		_, err := tls.LoadX509KeyPair(a.dir.NodeClientCert(), a.dir.NodeClientKey())
		return err == nil
	})
}

// TestRenewalKeepsTheCA checks that a running authority does not create a new CA, because its clients trust the old one.
func TestRenewalKeepsTheCA(t *testing.T) {
	t.Parallel()
	for name, gone := range map[string]func(*datadir.Dir) []string{
		"own":   func(d *datadir.Dir) []string { return []string{d.CACert(), d.CAKey(), d.ServingCert()} },
		"nodes": func(d *datadir.Dir) []string { return []string{d.NodesCACert(), d.NodesCAKey()} },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := start(t, clock.RealClock{})
			for _, file := range gone(a.dir) {
				if err := os.Remove(file); err != nil {
					t.Fatal(err)
				}
			}
			if err := a.certs.renew(); err == nil || !strings.Contains(err.Error(), "start the authority again") {
				t.Errorf("renewed without the CA: %v", err)
			}
			for _, file := range gone(a.dir) {
				if _, err := os.Stat(file); !os.IsNotExist(err) {
					t.Errorf("%s was created: %v", file, err)
				}
			}
		})
	}
}

// TestNothingIsRenewedAfterTheEnd checks that nothing is written after Stop, because another process may have locked the
// directory by then.
func TestNothingIsRenewedAfterTheEnd(t *testing.T) {
	t.Parallel()
	a := start(t, clock.RealClock{})
	if err := a.Stop(); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(a.dir.ServingCert()); err != nil {
		t.Fatal(err)
	}
	if err := a.certs.renew(); !errors.Is(err, errUnlocked) {
		t.Errorf("renewed: %v", err)
	}
	if _, err := a.EnsureNode("here", nil); !errors.Is(err, errUnlocked) {
		t.Errorf("created the files of a node: %v", err)
	}
	if _, err := os.Stat(a.dir.ServingCert()); !os.IsNotExist(err) {
		t.Errorf("the serving certificate was created: %v", err)
	}
}

func start(t *testing.T, now clock.Clock) *Authority {
	t.Helper()
	// The test's context would end before the authority is stopped.
	a, err := Start(context.Background(), Config{DataDir: t.TempDir(), BindAddress: "127.0.0.1", Log: io.Discard, UnsafeNoFsync: true, Unannounced: true, clock: now})
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

func eventually(t *testing.T, what string, done func() bool) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(2 * time.Minute); !done(); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within two minutes", what)
		}
	}
}

// contents returns the contents of files.
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

// servingCertificate returns the certificate with which the authority serves.
func servingCertificate(t *testing.T, a *Authority) *x509.Certificate {
	t.Helper()
	connection, err := tls.Dial("tcp", strings.TrimPrefix(a.URL, "https://"), &tls.Config{InsecureSkipVerify: true})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = connection.Close() }()
	return connection.ConnectionState().PeerCertificates[0]
}
