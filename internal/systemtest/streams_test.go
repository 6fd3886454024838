// Promise: an open watch or session ends within a second of the credential or the rights of its caller.

package systemtest

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/portforward"
	"k8s.io/client-go/tools/remotecommand"
	"k8s.io/client-go/transport/spdy"
	"k8s.io/streaming/pkg/httpstream"
	"k8s.io/utils/ptr"

	"lanyard.dev/internal/pki"
	"lanyard.dev/lanyardtest"
)

const (
	// endLimit is the promise: how long a stream may go on.
	endLimit = time.Second
	// streamLife is the life of the credentials that expire in these tests. It is long enough to open the streams.
	streamLife = 4 * time.Second
)

// openStream is a stream of a client. ended receives its end.
type openStream struct {
	name  string
	ended <-chan streamEnd
}

// streamEnd is the moment of the end, and the client's error.
type streamEnd struct {
	at  time.Time
	err error
}

// streamRules are the rights for every stream of openStreams.
var streamRules = []rbacv1.PolicyRule{
	rbacRule("", "configmaps", "watch"), rbacRule("", "pods", "get"), rbacRule("", "pods/log", "get"),
	{APIGroups: []string{""}, Resources: []string{"pods/exec", "pods/portforward"}, Verbs: []string{"get", "create"}},
}

// openStreams opens a stream of each kind, and returns when all of them are open.
func (s *sessionFixture) openStreams(t *testing.T, config *rest.Config) []openStream {
	t.Helper()
	t.Helper()
	openers := map[string]func(*testing.T, *rest.Config) <-chan error{
		"watch over HTTP/1.1":     func(t *testing.T, c *rest.Config) <-chan error { return s.openWatch(t, c, "http/1.1") },
		"watch over HTTP/2":       func(t *testing.T, c *rest.Config) <-chan error { return s.openWatch(t, c, "h2") },
		"watch over a WebSocket":  s.openWebSocket,
		"log":                     s.openLog,
		"exec over a WebSocket":   s.openExec(remotecommand.NewWebSocketExecutor),
		"exec over SPDY":          s.openExec(spdyExecutor),
		"ports over a WebSocket":  s.openPorts(false),
		"port-forwarding by SPDY": s.openPorts(true),
	}
	var opened []openStream
	for name, open := range openers {
		closed, ended := open(t, config), make(chan streamEnd, 1)
		go func() {
			err := <-closed
			ended <- streamEnd{time.Now(), err}
		}()
		opened = append(opened, openStream{name, ended})
	}
	return opened
}

func (s *sessionFixture) watchPath() string {
	return "/api/v1/namespaces/" + s.namespace + "/configmaps?watch=true&allowWatchBookmarks=true"
}

// openWatch opens a watch and returns when it has delivered the first event.
func (s *sessionFixture) openWatch(t *testing.T, config *rest.Config, protocol string) <-chan error {
	config = rest.CopyConfig(config)
	config.NextProtos = []string{protocol}
	return drained(t, callerFor(t, config), s.watchPath(), map[string]string{})
}

// openWebSocket opens a watch as a browser does.
func (s *sessionFixture) openWebSocket(t *testing.T, config *rest.Config) <-chan error {
	config = rest.CopyConfig(config)
	config.NextProtos = []string{"http/1.1"}
	return drained(t, callerFor(t, config), s.watchPath(), map[string]string{
		"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": "MDEyMzQ1Njc4OWFiY2RlZg==",
		"Origin": config.Host,
	})
}

// drained sends a request and reads the first byte of the answer. It returns a channel with the end of the answer.
func drained(t *testing.T, c *caller, path string, headers map[string]string) <-chan error {
	request, err := http.NewRequestWithContext(context.Background(), http.MethodGet, c.url+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, value := range headers {
		request.Header.Set(name, value)
	}
	response, err := c.client.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	if response.StatusCode != http.StatusOK && response.StatusCode != http.StatusSwitchingProtocols {
		text, _ := io.ReadAll(response.Body)
		t.Fatalf("%s: %s %s", path, response.Status, text)
	}
	return readToEnd(t, response.Body)
}

// readToEnd reads the first byte, and returns a channel with the error at the end. It reads nil for an orderly end.
func readToEnd(t *testing.T, stream io.ReadCloser) <-chan error {
	if _, err := io.ReadFull(stream, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	return async(func() error {
		defer func() { _ = stream.Close() }()
		_, err := io.Copy(io.Discard, stream)
		return err
	})
}

func (s *sessionFixture) openLog(t *testing.T, config *rest.Config) <-chan error {
	stream, err := clientFor(t, config).CoreV1().Pods(s.namespace).GetLogs(s.pod.Name, &corev1.PodLogOptions{Follow: true}).Stream(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	return readToEnd(t, stream)
}

func (s *sessionFixture) sessionURL(t *testing.T, config *rest.Config, subresource string) *url.URL {
	return clientFor(t, config).CoreV1().RESTClient().Post().Namespace(s.namespace).Resource("pods").Name(s.pod.Name).SubResource(subresource).URL()
}

func spdyExecutor(config *rest.Config, _, address string) (remotecommand.Executor, error) {
	parsed, err := url.Parse(address)
	if err != nil {
		return nil, err
	}
	return remotecommand.NewSPDYExecutor(config, http.MethodPost, parsed)
}

// openExec runs a command that does not end, and returns when it runs.
func (s *sessionFixture) openExec(newExecutor func(*rest.Config, string, string) (remotecommand.Executor, error)) func(*testing.T, *rest.Config) <-chan error {
	return func(t *testing.T, config *rest.Config) <-chan error {
		address := s.sessionURL(t, config, "exec")
		address.RawQuery = url.Values{"command": {"sh", "-c", "echo up; sleep 600"}, "stdout": {"true"}}.Encode()
		executor, err := newExecutor(config, http.MethodGet, address.String())
		if err != nil {
			t.Fatal(err)
		}
		out, running := io.Pipe()
		ended := async(func() error {
			err := executor.StreamWithContext(context.Background(), remotecommand.StreamOptions{Stdout: running})
			_ = running.CloseWithError(fmt.Errorf("the command has ended: %w", err))
			return err
		})
		if _, err := io.ReadFull(out, make([]byte, 3)); err != nil {
			t.Fatal(err)
		}
		return ended
	}
}

func (s *sessionFixture) openPorts(overSPDY bool) func(*testing.T, *rest.Config) <-chan error {
	return func(t *testing.T, config *rest.Config) <-chan error {
		ready := make(chan struct{})
		dialer, err := newPortDialer(config, s.sessionURL(t, config, "portforward"), overSPDY)
		if err != nil {
			t.Fatal(err)
		}
		forwarder, err := portforward.NewOnAddressesForStreaming(dialer, []string{"127.0.0.1"}, []string{"0:80"}, make(chan struct{}), ready, io.Discard, io.Discard)
		if err != nil {
			t.Fatal(err)
		}
		ended := async(forwarder.ForwardPorts)
		select {
		case <-ready:
		case err := <-ended:
			t.Fatal(err)
		}
		return ended
	}
}

func newPortDialer(config *rest.Config, to *url.URL, overSPDY bool) (httpstream.Dialer, error) {
	if !overSPDY {
		return portforward.NewSPDYOverWebsocketDialerForStreaming(to, config)
	}
	transport, upgrader, err := spdy.RoundTripperFor(config)
	if err != nil {
		return nil, err
	}
	return spdy.NewDialerForStreaming(upgrader, &http.Client{Transport: transport}, http.MethodPost, to), nil
}

// expectEnd waits until each stream has ended, and checks that none went on for longer than endLimit after the moment.
func expectEnd(t *testing.T, streams []openStream, after time.Time) {
	t.Helper()
	timeout := time.After(waitLimit)
	for _, s := range streams {
		select {
		case end := <-s.ended:
			if took := end.at.Sub(after); took > endLimit {
				t.Errorf("%s ended %v after its caller was no longer accepted", s.name, took)
			}
			if strings.HasPrefix(s.name, "watch over HTTP") && end.err != nil {
				t.Errorf("%s did not end in order: %v", s.name, end.err)
			}
		case <-timeout:
			t.Fatalf("%s does not end", s.name)
		}
	}
}

// expectOpen checks that no stream has ended.
func expectOpen(t *testing.T, streams []openStream) {
	t.Helper()
	for _, s := range streams {
		select {
		case <-s.ended:
			t.Errorf("%s has ended", s.name)
		default:
		}
	}
}

// losses are the ways in which a caller loses its credential or its rights. Each returns the caller, and a function that
// takes its credential or its rights away and returns the moment from which the caller is not accepted.
var losses = map[string]func(*testing.T, *sessionFixture) (*rest.Config, func() time.Time){
	"token expires": func(t *testing.T, s *sessionFixture) (*rest.Config, func() time.Time) {
		s.createStreamer(t, "expiring")
		request := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{ExpirationSeconds: ptr.To(int64(streamLife.Seconds()))}}
		issued, err := s.authority.Client().CoreV1().ServiceAccounts(s.namespace).CreateToken(t.Context(), "expiring", request, metav1.CreateOptions{})
		must(t, err)
		return bearing(s.authority.Config(), issued.Status.Token), func() time.Time { return issued.Status.ExpirationTimestamp.Time }
	},
	"account deleted": func(t *testing.T, s *sessionFixture) (*rest.Config, func() time.Time) {
		s.createStreamer(t, "leaving")
		return s.authority.As(t, s.namespace, "leaving"), func() time.Time {
			must(t, s.authority.Client().CoreV1().ServiceAccounts(s.namespace).Delete(t.Context(), "leaving", metav1.DeleteOptions{}))
			return time.Now()
		}
	},
	"pod deleted": func(t *testing.T, s *sessionFixture) (*rest.Config, func() time.Time) {
		s.createStreamer(t, "in-pod")
		pod := podOn("")
		pod.Name, pod.Spec.ServiceAccountName = "bound", "in-pod"
		token, err := podToken(t.Context(), s.authority.Client(), "in-pod", createPod(t, s.authority, s.namespace, pod))
		must(t, err)
		return bearing(s.authority.Config(), token), func() time.Time {
			must(t, s.authority.Client().CoreV1().Pods(s.namespace).Delete(t.Context(), "bound", metav1.DeleteOptions{GracePeriodSeconds: ptr.To[int64](0)}))
			return time.Now()
		}
	},
	"node deleted": func(t *testing.T, s *sessionFixture) (*rest.Config, func() time.Time) {
		s.createStreamer(t, "on-node")
		node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "two"}}
		_, err := s.authority.Client().CoreV1().Nodes().Create(t.Context(), node, metav1.CreateOptions{})
		must(t, err)
		token := s.authority.TokenFor(t, s.namespace, "on-node", authenticationv1.TokenRequestSpec{
			BoundObjectRef: &authenticationv1.BoundObjectReference{APIVersion: "v1", Kind: "Node", Name: "two"},
		})
		return bearing(s.authority.Config(), token), func() time.Time {
			must(t, s.authority.Client().CoreV1().Nodes().Delete(t.Context(), "two", metav1.DeleteOptions{}))
			return time.Now()
		}
	},
	"secret deleted": func(t *testing.T, s *sessionFixture) (*rest.Config, func() time.Time) {
		s.createStreamer(t, "by-secret")
		secrets := s.authority.Client().CoreV1().Secrets(s.namespace)
		_, err := secrets.Create(t.Context(), &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "bound"}}, metav1.CreateOptions{})
		must(t, err)
		token := s.authority.TokenFor(t, s.namespace, "by-secret", authenticationv1.TokenRequestSpec{
			BoundObjectRef: &authenticationv1.BoundObjectReference{APIVersion: "v1", Kind: "Secret", Name: "bound"},
		})
		return bearing(s.authority.Config(), token), func() time.Time {
			must(t, secrets.Delete(t.Context(), "bound", metav1.DeleteOptions{}))
			return time.Now()
		}
	},
	"binding removed": func(t *testing.T, s *sessionFixture) (*rest.Config, func() time.Time) {
		s.authority.CreateServiceAccount(t, s.namespace, "unbound")
		s.bindRole(t, "unbound", accountSubject(s.namespace, "unbound"), streamRules...)
		return s.authority.As(t, s.namespace, "unbound"), func() time.Time {
			must(t, s.authority.Client().RbacV1().RoleBindings(s.namespace).Delete(t.Context(), "unbound", metav1.DeleteOptions{}))
			return time.Now()
		}
	},
	"certificate expires": func(t *testing.T, s *sessionFixture) (*rest.Config, func() time.Time) {
		s.bindRole(t, "jane", userSubject("jane"), streamRules...)
		config, expires := s.shortCertificate(t, "jane", streamLife)
		return config, func() time.Time { return expires }
	},
	"impersonation forbidden": func(t *testing.T, s *sessionFixture) (*rest.Config, func() time.Time) {
		s.authority.CreateServiceAccount(t, s.namespace, "actor")
		s.bindRole(t, "mary", userSubject("mary"), streamRules...)
		bindClusterRole(t, s.authority.Client(), "act-as-mary", accountSubject(s.namespace, "actor"),
			rbacv1.PolicyRule{APIGroups: []string{""}, Resources: []string{"users"}, Verbs: []string{"impersonate"}, ResourceNames: []string{"mary"}})
		config := s.authority.As(t, s.namespace, "actor")
		config.Impersonate.UserName = "mary"
		return config, func() time.Time {
			must(t, s.authority.Client().RbacV1().ClusterRoleBindings().Delete(t.Context(), "act-as-mary", metav1.DeleteOptions{}))
			return time.Now()
		}
	},
}

// createStreamer creates an account that may open every stream.
func (s *sessionFixture) createStreamer(t *testing.T, name string) {
	t.Helper()
	s.authority.CreateServiceAccount(t, s.namespace, name)
	s.authority.Grant(t, s.namespace, name, streamRules...)
}

// bindRole grants rules in the namespace, by a Role and a RoleBinding with the name.
func (s *sessionFixture) bindRole(t *testing.T, name string, subject rbacv1.Subject, rules ...rbacv1.PolicyRule) {
	t.Helper()
	rbac, meta := s.authority.Client().RbacV1(), metav1.ObjectMeta{Name: name}
	_, err := rbac.Roles(s.namespace).Create(t.Context(), &rbacv1.Role{ObjectMeta: meta, Rules: rules}, metav1.CreateOptions{})
	must(t, err)
	_, err = rbac.RoleBindings(s.namespace).Create(t.Context(), &rbacv1.RoleBinding{
		ObjectMeta: meta, Subjects: []rbacv1.Subject{subject}, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: name},
	}, metav1.CreateOptions{})
	must(t, err)
}

// shortCertificate returns the configuration with a client certificate, and the moment when it expires.
func (s *sessionFixture) shortCertificate(t *testing.T, name string, valid time.Duration) (*rest.Config, time.Time) {
	t.Helper()
	dir := s.authority.DataDir()
	signer, err := pki.LoadSigner(filepath.Join(dir, "ca.crt"), filepath.Join(dir, "ca.key"))
	must(t, err)
	key, text, err := pki.NewRequest(name, nil)
	must(t, err)
	request, err := pki.ParseRequest(text)
	must(t, err)
	signed, err := signer.Sign(request, pki.Terms{Life: valid, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}, time.Now())
	must(t, err)
	block, _ := pem.Decode(signed)
	certificate, err := x509.ParseCertificate(block.Bytes)
	must(t, err)
	return withCertificate(s.authority.Config(), signed, key), certificate.NotAfter
}

// TestStreamsEndWithTheirCallers opens every kind of stream as callers that then lose their credentials or their rights. Those of
// another caller stay open, while unrelated objects are written.
func TestStreamsEndWithTheirCallers(t *testing.T) {
	t.Parallel()
	s := newSessionFixtureWith(t, lanyardtest.Options{MinTokenExpiration: time.Second})
	s.createMap(t, "one") // so that each watch has a first event
	s.createStreamer(t, "bystander")
	untouched := s.openStreams(t, s.authority.As(t, s.namespace, "bystander"))
	t.Run("lose", func(t *testing.T) {
		for name, lose := range losses {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				config, end := lose(t, s)
				streams := s.openStreams(t, config)
				expectEnd(t, streams, end())
			})
		}
		t.Run("nothing", func(t *testing.T) {
			t.Parallel()
			for i := range 30 {
				s.writeUnrelated(t, fmt.Sprint("unrelated-", i))
			}
		})
	})
	expectOpen(t, untouched)
	s.checkEndsAreRecorded(t)
}

func (s *sessionFixture) createMap(t *testing.T, name string) {
	t.Helper()
	_, err := s.authority.Client().CoreV1().ConfigMaps(s.namespace).Create(t.Context(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{})
	must(t, err)
}

// writeUnrelated creates and deletes objects of the kinds that a caller may depend on.
func (s *sessionFixture) writeUnrelated(t *testing.T, name string) {
	t.Helper()
	s.createStreamer(t, name)
	s.bindRole(t, name, userSubject(name), streamRules...)
	core, rbac := s.authority.Client().CoreV1(), s.authority.Client().RbacV1()
	must(t, core.ServiceAccounts(s.namespace).Delete(t.Context(), name, metav1.DeleteOptions{}))
	must(t, rbac.RoleBindings(s.namespace).Delete(t.Context(), name, metav1.DeleteOptions{}))
	must(t, rbac.Roles(s.namespace).Delete(t.Context(), name, metav1.DeleteOptions{}))
}

// checkEndsAreRecorded checks that the audit log and the metrics have the ends of streams and their reasons.
func (s *sessionFixture) checkEndsAreRecorded(t *testing.T) {
	t.Helper()
	log, err := os.ReadFile(filepath.Join(s.authority.DataDir(), "audit", "audit.log"))
	must(t, err)
	metrics := string(callerFor(t, s.authority.Config()).get(t, "/metrics").body)
	for reason, want := range map[string]int{"credential": 6 * 8, "rights": 2 * 8} {
		if got := strings.Count(string(log), fmt.Sprintf(`"identity.lanyard.dev/ended-by":%q`, reason)); got != want {
			t.Errorf("the audit log has %d streams that ended by %s, want %d", got, reason, want)
		}
		if line := fmt.Sprintf("lanyard_streams_ended_total{reason=%q} %d\n", reason, want); !strings.Contains(metrics, line) {
			t.Errorf("the metrics lack %s", line)
		}
	}
}
