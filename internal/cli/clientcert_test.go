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

	"lanyard.dev/internal/node/process"
	"lanyard.dev/internal/pki"
)

// TestLastingClient has a client follow the certificate in its kubeconfig, with the next connection, and go on with the
// last one where there is none.
func TestLastingClient(t *testing.T) {
	t.Parallel()
	presented := make(chan []byte, 1)
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
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
	first, second, other := config("dev"), config("dev"), config("admin")
	hangUp := process.Dial(first)
	client, err := lastingClient(first, func() (*rest.Config, error) {
		if now == nil {
			return nil, errors.New("there is no kubeconfig")
		}
		return now, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for step, test := range []struct{ found, want *rest.Config }{{nil, first}, {first, first}, {second, second}, {&rest.Config{}, second}, {other, second}, {nil, second}} {
		now = test.found
		hangUp()
		if _, err := client.Discovery().ServerVersion(); err != nil {
			t.Fatal(step, err)
		}
		want, _ := pem.Decode(test.want.CertData)
		if got := <-presented; !bytes.Equal(got, want.Bytes) {
			t.Errorf("step %d: another certificate", step)
		}
	}
}
