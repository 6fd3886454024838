package cli

import (
	"bytes"
	"crypto/tls"
	"encoding/pem"
	"errors"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"testing"
	"time"

	"k8s.io/client-go/rest"

	"lanyard.dev/internal/pki"
	"lanyard.dev/internal/process"
)

// TestReloadingClient changes the certificate in the kubeconfig of a client. The next connection must present the new one, or
// the last one if the kubeconfig is missing or belongs to another user or server.
func TestReloadingClient(t *testing.T) {
	t.Parallel()
	presented, agent := make(chan []byte, 1), ""
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		agent = r.UserAgent()
		presented <- r.TLS.PeerCertificates[0].Raw
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write([]byte(`{"major":"1","minor":"37"}`))
	}))
	server.TLS = &tls.Config{ClientAuth: tls.RequireAnyClientCert}
	server.StartTLS()
	t.Cleanup(server.Close)

	dir := t.TempDir()
	ca, err := pki.EnsureAuthority(filepath.Join(dir, "ca.crt"), filepath.Join(dir, "ca.key"), "ca", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	var now *rest.Config
	config := func(name string) *rest.Config {
		pair, err := ca.NewClient(name, nil, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		serverCA := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
		return &rest.Config{Host: server.URL, TLSClientConfig: rest.TLSClientConfig{CAData: serverCA, CertData: pair.CertPEM, KeyData: pair.KeyPEM}}
	}
	first, second, other, elsewhere := config("dev"), config("dev"), config("admin"), config("dev")
	elsewhere.Host = "https://elsewhere:6443"
	closeConnections := process.TrackConnections(first)
	client, err := newReloadingClient(first, func() (*rest.Config, error) {
		if now == nil {
			return nil, errors.New("there is no kubeconfig")
		}
		return now, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for step, test := range []struct{ found, want *rest.Config }{{nil, first}, {first, first}, {second, second}, {&rest.Config{}, second}, {other, second}, {elsewhere, second}, {nil, second}} {
		now = test.found
		closeConnections()
		if _, err := client.Discovery().ServerVersion(); err != nil {
			t.Fatal(step, err)
		}
		want, _ := pem.Decode(test.want.CertData)
		if got := <-presented; !bytes.Equal(got, want.Bytes) {
			t.Errorf("step %d: another certificate", step)
		}
	}
	if agent != rest.DefaultKubernetesUserAgent() {
		t.Errorf("the user agent is %q", agent)
	}
}

// TestReloadingClientOfFiles expects that files are left to client-go, which reloads them itself.
func TestReloadingClientOfFiles(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	ca, err := pki.EnsureAuthority(filepath.Join(dir, "ca.crt"), filepath.Join(dir, "ca.key"), "ca", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	keyFile := filepath.Join(dir, "dev.key")
	pair, err := ca.EnsureClient(filepath.Join(dir, "dev.crt"), keyFile, "dev", nil, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	for name, files := range map[string]rest.TLSClientConfig{
		"certificate inline, key in a file": {CertData: pair.CertPEM, KeyFile: keyFile},
		"both in files":                     {CertFile: filepath.Join(dir, "dev.crt"), KeyFile: keyFile},
		"neither":                           {},
	} {
		_, err := newReloadingClient(&rest.Config{Host: "https://127.0.0.1:1", TLSClientConfig: files}, func() (*rest.Config, error) {
			return nil, errors.New("not expected")
		})
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}
