// Promise: authority and node each accept only the other's certificate, and a node serves only who may use it.

package systemtest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"
	"testing"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"lanyard.dev/internal/nodeaccess"
	"lanyard.dev/internal/pki"
)

// TestNodeMustShowItsOwnCertificate lets the node serve with certificates of others.
func TestNodeMustShowItsOwnCertificate(t *testing.T) {
	t.Parallel()
	s := newSessionFixture(t)
	other, err := pki.EnsureAuthority(filepath.Join(t.TempDir(), "crt"), filepath.Join(t.TempDir(), "key"), "other", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	foreign := servingCertificate(t, other, "system:node:one", "system:nodes")
	authority, err := s.nodes.NewServing(pki.ServingNames("one", ""), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	client, err := s.nodes.NewClient("system:node:one", []string{"system:nodes"}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		certificate *tls.Certificate
		message     string
	}{
		"another node":           {servingCertificate(t, s.nodes, "system:node:two", "system:nodes"), `belongs to "system:node:two"`},
		"no node":                {servingCertificate(t, s.nodes, "one", "system:nodes"), `belongs to "one"`},
		"no group":               {servingCertificate(t, s.nodes, "system:node:one"), `belongs to "system:node:one"`},
		"more groups":            {servingCertificate(t, s.nodes, "system:node:one", "system:nodes", "x"), `belongs to "system:node:one"`},
		"another CA":             {foreign, "unknown authority"},
		"the clients' CA":        {servingCertificate(t, s.ca, "system:node:one", "system:nodes"), "unknown authority"},
		"the authority's":        {parsePair(t, authority), `belongs to "lanyard-serving"`},
		"the node's as a client": {parsePair(t, client), "certificate"},
	} {
		s.serving.Store(test.certificate)
		for _, args := range [][]string{{"logs", s.pod.Name}, {"exec", s.pod.Name, "--", "echo", "out"}} {
			overBothProtocols(t, func(t *testing.T, spdy bool) {
				stdout, stderr, code := runCommand(t, s.kubectl(t, "", spdy, args...))
				if code == 0 || stdout != "" || !strings.Contains(stderr, test.message) {
					t.Errorf("%s, %s: got %q, %q, %d", name, args[0], stdout, stderr, code)
				}
			})
		}
	}
}

// TestNoConnectionToAnEvictedNode checks that a serving certificate from before the eviction is refused even after the node
// was registered again.
func TestNoConnectionToAnEvictedNode(t *testing.T) {
	t.Parallel()
	s := newSessionFixture(t)
	s.serving.Store(servingCertificate(t, s.nodes, "system:node:one", "system:nodes"))
	record, err := s.authority.Client().CoreV1().Secrets(nodeaccess.EvictionNamespace).Create(t.Context(), nodeaccess.NewEviction("one"), metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if stdout, stderr, code := runCommand(t, s.kubectl(t, "", false, "logs", s.pod.Name)); code == 0 || stdout != "" || !strings.Contains(stderr, "the node was evicted") {
		t.Errorf("got %q, %q, %d", stdout, stderr, code)
	}
	s.serving.Store(servingCertificate(t, s.nodes.From(record.CreationTimestamp.Add(time.Second)), "system:node:one", "system:nodes"))
	if _, stderr, _ := runCommand(t, s.kubectl(t, "", false, "logs", s.pod.Name)); strings.Contains(stderr, "the node was evicted") {
		t.Errorf("with a new certificate: %q", stderr)
	}
}

// TestNodeAuthorizesItsCallers sends requests to the node directly.
func TestNodeAuthorizesItsCallers(t *testing.T) {
	t.Parallel()
	s := newSessionFixture(t)
	path := "/containerLogs/" + s.namespace + "/" + s.pod.Name + "/c"
	run := "/exec/" + s.namespace + "/" + s.pod.Name + "/c?command=echo&command=out&output=1"
	strangers, err := pki.EnsureAuthority(filepath.Join(t.TempDir(), "crt"), filepath.Join(t.TempDir(), "key"), "other", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		certificate func() (*pki.Pair, error)
		method      string
		path        string
		code        int
		message     string
	}{
		"no certificate":         {nil, "GET", path, 401, "Unauthorized"},
		"no certificate, health": {nil, "GET", "/healthz", 200, "ok"},
		"no certificate, exec":   {nil, "POST", run, 401, "Unauthorized"},
		"a client of another CA": {func() (*pki.Pair, error) {
			return strangers.NewClient("kube-apiserver-kubelet-client", nil, time.Now())
		}, "GET", path, 401, "Unauthorized"},
		"system:masters of another CA":       {func() (*pki.Pair, error) { return strangers.NewClient("x", []string{"system:masters"}, time.Now()) }, "POST", run, 401, "Unauthorized"},
		"a serving certificate":              {func() (*pki.Pair, error) { return s.ca.NewServing(pki.Names{DNS: []string{"x"}}, time.Now()) }, "GET", path, 401, "Unauthorized"},
		"a user without rights":              {func() (*pki.Pair, error) { return s.ca.NewClient("jane", []string{"dev"}, time.Now()) }, "GET", path, 403, "Forbidden (user=jane, verb=get, resource=nodes, subresource=proxy)"},
		"a user without rights, exec by GET": {func() (*pki.Pair, error) { return s.ca.NewClient("jane", []string{"dev"}, time.Now()) }, "GET", run, 403, "verb=create"},
		"the node itself": {func() (*pki.Pair, error) {
			return s.ca.NewClient("system:node:one", []string{"system:nodes"}, time.Now())
		}, "GET", path, 403, "Forbidden"},
		"the authority":           {func() (*pki.Pair, error) { return s.ca.NewClient("kube-apiserver-kubelet-client", nil, time.Now()) }, "GET", path, 200, "id-c: one\n"},
		"the administrator":       {func() (*pki.Pair, error) { return s.ca.NewClient("a", []string{"system:masters"}, time.Now()) }, "GET", path, 200, "id-c: one\n"},
		"no such pod":             {func() (*pki.Pair, error) { return s.ca.NewClient("a", []string{"system:masters"}, time.Now()) }, "GET", "/containerLogs/x/y/z", 404, `pod "y" does not exist`},
		"exec without an upgrade": {func() (*pki.Pair, error) { return s.ca.NewClient("a", []string{"system:masters"}, time.Now()) }, "POST", run, 400, "Upgrade request required"},
		"exec without a command":  {func() (*pki.Pair, error) { return s.ca.NewClient("a", []string{"system:masters"}, time.Now()) }, "POST", strings.ReplaceAll(run, "command", "x"), 400, "at least one command"},
		"run":                     {func() (*pki.Pair, error) { return s.ca.NewClient("a", []string{"system:masters"}, time.Now()) }, "POST", "/run/x/y/z", 404, ""},
		"debug":                   {func() (*pki.Pair, error) { return s.ca.NewClient("a", []string{"system:masters"}, time.Now()) }, "GET", "/debug/pprof/", 404, ""},
		"logs of the host":        {func() (*pki.Pair, error) { return s.ca.NewClient("a", []string{"system:masters"}, time.Now()) }, "GET", "/logs/", 404, ""},
		"a log by POST":           {func() (*pki.Pair, error) { return s.ca.NewClient("a", []string{"system:masters"}, time.Now()) }, "POST", path, 405, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			config := &tls.Config{RootCAs: x509.NewCertPool(), ServerName: "one"}
			config.RootCAs.AddCert(s.nodes.Certificate())
			if test.certificate != nil {
				pair, err := test.certificate()
				if err != nil {
					t.Fatal(err)
				}
				config.Certificates = []tls.Certificate{*parsePair(t, pair)}
			}
			client := &http.Client{Transport: &http.Transport{TLSClientConfig: config, DisableKeepAlives: true}}
			request, err := http.NewRequestWithContext(t.Context(), test.method, fmt.Sprintf("https://%s%s", s.address, test.path), nil)
			if err != nil {
				t.Fatal(err)
			}
			answer, err := client.Do(request)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = answer.Body.Close() }()
			body, err := io.ReadAll(answer.Body)
			if err != nil || answer.StatusCode != test.code || !strings.Contains(string(body), test.message) {
				t.Errorf("got %d, %q, %v", answer.StatusCode, body, err)
			}
		})
	}
}

// TestNodeConnectsToLoopbackOnly uses a runtime whose URLs of sessions are not on loopback.
func TestNodeConnectsToLoopbackOnly(t *testing.T) {
	t.Parallel()
	s := newSessionFixture(t)
	for _, elsewhere := range []string{"http://192.0.2.1:80/x", "https://127.0.0.1:1/x", "http://example.com/x", "http:///x", "http://0.0.0.0:1/x"} {
		target, err := url.Parse(elsewhere)
		if err != nil {
			t.Fatal(err)
		}
		s.runtime.redirect.Store(target)
		_, stderr, code := runCommand(t, s.kubectl(t, "", true, "exec", s.pod.Name, "--", "true"))
		if code == 0 || !strings.Contains(stderr, "only http on loopback") {
			t.Errorf("%s: %q, %d", elsewhere, stderr, code)
		}
	}
}

// TestUnreachableNode checks the errors for pods without a node that can be reached.
func TestUnreachableNode(t *testing.T) {
	t.Parallel()
	s := newSessionFixture(t)
	core := s.authority.Client().CoreV1()
	two := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "two"}}
	two.Spec.Containers = []corev1.Container{{Name: "a", Image: "x"}, {Name: "b", Image: "x"}}
	two.Spec.InitContainers = []corev1.Container{{Name: "i", Image: "x"}}
	process := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "process", Annotations: map[string]string{"identity.lanyard.dev/process": "true"}}}
	process.Spec.Containers = two.Spec.Containers[:1]
	orphan := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "orphan"}}
	orphan.Spec.Containers, orphan.Spec.NodeName = two.Spec.Containers[:1], "gone"
	for _, pod := range []*corev1.Pod{two, process, orphan} {
		createPod(t, s.authority, s.namespace, pod)
	}
	logs := func(name string) error {
		stream, err := core.Pods(s.namespace).GetLogs(name, &corev1.PodLogOptions{}).Stream(t.Context())
		if err == nil {
			_ = stream.Close()
		}
		return err
	}
	run := func(name string) error {
		return core.RESTClient().Post().Namespace(s.namespace).Resource("pods").Name(name).SubResource("exec").Param("container", "a").Do(t.Context()).Error()
	}
	check := func(what string, err error, message string) {
		t.Helper()
		if message == "" && err == nil {
			return
		}
		if err == nil || !strings.Contains(err.Error(), message) {
			t.Errorf("%s: %v", what, err)
		}
	}
	check("several containers", logs("two"), "a container name must be specified for pod two, choose one of: [i a b]")
	check("exec, not bound", run("two"), "pod two does not have a host assigned")
	check("process", logs("process"), "represents a process that was started with lanyard exec")
	check("process", run("process"), "represents a process that was started with lanyard exec")
	check("no such node", logs("orphan"), `nodes "gone" not found`)
	check("no such pod", logs("nobody"), `pods "nobody" not found`)
	two.ObjectMeta = metav1.ObjectMeta{Name: "annotated", Annotations: map[string]string{"kubectl.kubernetes.io/default-container": "b"}}
	createPod(t, s.authority, s.namespace, two)
	check("not bound, with a default container", logs("annotated"), "")
	s.reportPort(0)
	check("no port", logs(s.pod.Name), "reports no port")
	s.reportPort(1)
	check("nothing listens at the port", logs(s.pod.Name), "refused")
}

// TestNodeGetsAServingCertificate lets a node request a serving certificate, which is approved automatically, and serve
// with it.
func TestNodeGetsAServingCertificate(t *testing.T) {
	t.Parallel()
	s := newSessionFixture(t)
	node := nodeClient(t, s.authority, "one")
	usages := []certificatesv1.KeyUsage{certificatesv1.UsageServerAuth, certificatesv1.UsageDigitalSignature}
	key, request := servingRequest(t, "system:node:one", net.IPv4(127, 0, 0, 1))
	certificate := awaitCertificate(t, s.authority.Client(), requestCertificate(t, node, request, certificatesv1.KubeletServingSignerName, usages))
	pair, err := tls.X509KeyPair(certificate, key)
	if err != nil {
		t.Fatal(err)
	}
	s.serving.Store(&pair)
	if stdout, stderr, code := runCommand(t, s.kubectl(t, "", false, "logs", s.pod.Name, "--tail=1")); stdout != "id-c: three\n" || code != 0 {
		t.Errorf("got %q, %q, %d", stdout, stderr, code)
	}
	// A node does not get the certificate of another node or of the authority, and other users do not get a node's.
	_, twos := servingRequest(t, "system:node:two", net.IPv4(127, 0, 0, 1))
	_, authoritys := servingRequest(t, "system:node:one", net.IPv4(127, 0, 0, 1), "localhost")
	_, err = node.CertificatesV1().CertificateSigningRequests().Create(t.Context(), &certificatesv1.CertificateSigningRequest{
		ObjectMeta: metav1.ObjectMeta{GenerateName: "twos-"},
		Spec:       certificatesv1.CertificateSigningRequestSpec{Request: twos, SignerName: certificatesv1.KubeletServingSignerName, Usages: usages},
	}, metav1.CreateOptions{})
	wantForbidden(t, "another node's certificate", err, "can only create a node CSR with CN=system:node:one")
	waiting := []string{
		requestCertificate(t, node, authoritys, certificatesv1.KubeletServingSignerName, usages),
		requestCertificate(t, s.authority.Client(), request, certificatesv1.KubeletServingSignerName, usages),
	}
	// Requests are processed in order: once the last one is decided, those before it have been processed.
	_, last := servingRequest(t, "system:node:one", net.IPv4(127, 0, 0, 1))
	awaitCertificate(t, s.authority.Client(), requestCertificate(t, node, last, certificatesv1.KubeletServingSignerName, usages))
	for _, name := range waiting {
		r, err := s.authority.Client().CertificatesV1().CertificateSigningRequests().Get(t.Context(), name, metav1.GetOptions{})
		if err != nil || len(r.Status.Conditions) > 0 || len(r.Status.Certificate) > 0 {
			t.Errorf("%s: %+v, %v", name, r.Status.Conditions, err)
		}
	}
}

func servingRequest(t *testing.T, name string, address net.IP, dns ...string) (keyPEM, requestPEM []byte) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{
		Subject: pkix.Name{CommonName: name, Organization: []string{"system:nodes"}}, IPAddresses: []net.IP{address}, DNSNames: dns,
	}, key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: keyDER}), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})
}
