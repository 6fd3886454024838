package datadir

import (
	"crypto/tls"
	"crypto/x509"
	"net"
	"os"
	"slices"
	"testing"
	"time"

	"k8s.io/client-go/tools/clientcmd"
	clocktesting "k8s.io/utils/clock/testing"
)

func TestKubeconfig(t *testing.T) {
	t.Parallel()
	d := open(t, t.TempDir())
	if err := ensure(d); err != nil {
		t.Fatal(err)
	}
	config, err := clientcmd.LoadFromFile(d.Kubeconfig())
	if err != nil {
		t.Fatal(err)
	}
	if config.CurrentContext != "lanyard" || config.Clusters["lanyard"].Server != testURL || config.Contexts["lanyard"].AuthInfo != adminName {
		t.Errorf("kubeconfig %v", config)
	}
	config.Contexts["lanyard"].Namespace = "mine"
	if err := clientcmd.WriteToFile(*config, d.Kubeconfig()); err != nil {
		t.Fatal(err)
	}
	certificates, err := d.EnsureCertificates("", clocktesting.NewFakePassiveClock(now))
	if err != nil {
		t.Fatal(err)
	}
	if err := d.EnsureKubeconfig("https://127.0.0.1:7", certificates); err != nil {
		t.Fatal(err)
	}
	config, err = clientcmd.LoadFromFile(d.Kubeconfig())
	if err != nil {
		t.Fatal(err)
	}
	if config.Clusters["lanyard"].Server != "https://127.0.0.1:7" || config.Contexts["lanyard"].Namespace != "mine" {
		t.Errorf("after another port: %v %v", config.Clusters["lanyard"].Server, config.Contexts["lanyard"])
	}
}

func TestEnsureNode(t *testing.T) {
	t.Parallel()
	d := open(t, t.TempDir())
	if err := ensure(d); err != nil {
		t.Fatal(err)
	}
	address := net.IPv4(10, 0, 0, 1).To4()
	first := ensureNode(t, d, "one", address, now)
	if again := ensureNode(t, d, "one", address, now); again != first {
		t.Error("the files of the same node changed")
	}
	if renewed := ensureNode(t, d, "one", address, now.Add(300*24*time.Hour)); renewed.serving == first.serving || renewed.client == first.client {
		t.Error("certificates that end soon were kept")
	}
	if moved := ensureNode(t, d, "one", net.IPv4(10, 0, 0, 2).To4(), now); moved.serving == first.serving {
		t.Error("the certificate does not follow the address")
	}
	if other := ensureNode(t, d, "two", address, now); other.serving == first.serving || other.client == first.client {
		t.Error("another name has the same certificates")
	}
}

// written is the content of the files of a node.
type written struct{ kubeconfig, client, serving string }

// ensureNode creates the files and checks the names in the certificates.
func ensureNode(t *testing.T, d *Dir, name string, address net.IP, at time.Time) written {
	t.Helper()
	files, err := d.EnsureNode(name, []net.IP{address}, testURL, time.Time{}, clocktesting.NewFakePassiveClock(at))
	if err != nil {
		t.Fatal(err)
	}
	checkMode(t, files.Kubeconfig, 0o600)
	checkMode(t, files.ServingKey, 0o600)
	config, err := clientcmd.BuildConfigFromFlags("", files.Kubeconfig)
	if err != nil || config.Host != testURL {
		t.Fatalf("%+v, %v", config, err)
	}
	client, err := tls.LoadX509KeyPair(config.CertFile, config.KeyFile)
	if err != nil {
		t.Fatal(err)
	}
	serving, err := tls.LoadX509KeyPair(files.ServingCert, files.ServingKey)
	if err != nil {
		t.Fatal(err)
	}
	for usage, leaf := range map[x509.ExtKeyUsage]*x509.Certificate{x509.ExtKeyUsageClientAuth: client.Leaf, x509.ExtKeyUsageServerAuth: serving.Leaf} {
		if leaf.Subject.CommonName != "system:node:"+name || !slices.Equal(leaf.Subject.Organization, []string{"system:nodes"}) || !slices.Equal(leaf.ExtKeyUsage, []x509.ExtKeyUsage{usage}) {
			t.Errorf("%s: %v, for %v", name, leaf.Subject, leaf.ExtKeyUsage)
		}
	}
	if !slices.Equal(serving.Leaf.DNSNames, []string{name}) || len(serving.Leaf.IPAddresses) != 1 || !serving.Leaf.IPAddresses[0].Equal(address) {
		t.Errorf("serving certificate for %v, %v", serving.Leaf.DNSNames, serving.Leaf.IPAddresses)
	}
	kubeconfig, err := os.ReadFile(files.Kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	return written{string(kubeconfig), string(client.Certificate[0]), string(serving.Certificate[0])}
}
