// Fixture: the test binary, the authority that tests share, and clients of it.

package systemtest

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	"k8s.io/klog/v2"

	"lanyard.dev/internal/cli"
	"lanyard.dev/lanyardtest"
)

// waitLimit bounds every wait for an event that is sure to come. It is long enough for a slow machine.
const waitLimit = time.Minute

// actAsLanyard in the environment makes the test binary behave as the lanyard program.
const actAsLanyard = "SYSTEMTEST_ACT_AS_LANYARD"

// prepareProgram runs before the test binary acts as the lanyard program. A file for one operating system may replace it.
var prepareProgram = func() {}

func TestMain(m *testing.M) {
	if os.Getenv(actAsLanyard) != "" {
		prepareProgram()
		os.Exit(runLanyard(os.Args[1:]))
	}
	flag.Parse()
	if !testing.Verbose() {
		klog.SetSlogLogger(slog.New(slog.DiscardHandler))
	}
	code := m.Run()
	os.Exit(max(code, shared.end()))
}

// runLanyard is the lanyard program with one more command, shortTokenUp.
func runLanyard(args []string) (code int) {
	if len(args) > 0 && args[0] == shortTokenUp {
		return upWithShortTokens(args[1:])
	}
	return cli.Main()
}

// shared is what tests share. Its authority is for all tests that do not disturb it.
var shared = &binaryTB{}

// binaryTB is a testing.TB for fixtures that several tests share. Its cleanups run when the test binary ends.
type binaryTB struct {
	testing.TB

	once      sync.Once
	authority *lanyardtest.Authority

	mu       sync.Mutex
	cleanups []func()
	failed   bool
}

func (l *binaryTB) Context() context.Context { return context.Background() }

func (l *binaryTB) Helper() {}

func (l *binaryTB) Cleanup(f func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.cleanups = append(l.cleanups, f)
}

func (l *binaryTB) Errorf(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.failed = true
	fmt.Fprintf(os.Stderr, format+"\n", args...)
}

func (l *binaryTB) Fatal(args ...any) { panic(fmt.Sprint(args...)) }

func (l *binaryTB) Fatalf(format string, args ...any) { panic(fmt.Sprintf(format, args...)) }

func (l *binaryTB) TempDir() string {
	dir, err := os.MkdirTemp("", "systemtest-")
	if err != nil {
		l.Fatalf("%v", err)
	}
	l.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

func (l *binaryTB) end() (code int) {
	for i := len(l.cleanups) - 1; i >= 0; i-- {
		l.cleanups[i]()
	}
	if l.failed {
		return 1
	}
	return 0
}

// authority returns the shared authority.
func authority(t testing.TB) *lanyardtest.Authority {
	t.Helper()
	shared.once.Do(func() { shared.authority = lanyardtest.Start(shared) })
	return shared.authority
}

func clientFor(t testing.TB, config *rest.Config) *kubernetes.Clientset {
	t.Helper()
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	return client
}

func dynamicFor(t testing.TB, config *rest.Config) *dynamic.DynamicClient {
	t.Helper()
	client, err := dynamic.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	return client
}

// eventually calls done until it returns true. It is for conditions that no watch reports.
func eventually(t testing.TB, what string, done func(context.Context) bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), waitLimit)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !done(ctx) {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("%s: not within %v", what, waitLimit)
		}
	}
}

// async runs f in a goroutine and returns a channel with its error.
func async(f func() error) <-chan error {
	ended := make(chan error, 1)
	go func() { ended <- f() }()
	return ended
}

// writeKubeconfig writes a kubeconfig with the credentials of c, which impersonates as.
func writeKubeconfig(t *testing.T, c *rest.Config, as rest.ImpersonationConfig) string {
	t.Helper()
	config := clientcmdapi.NewConfig()
	config.Clusters["c"] = &clientcmdapi.Cluster{Server: c.Host, CertificateAuthorityData: c.CAData}
	config.AuthInfos["u"] = &clientcmdapi.AuthInfo{
		Token: c.BearerToken, ClientCertificateData: c.CertData, ClientKeyData: c.KeyData, Impersonate: as.UserName, ImpersonateGroups: as.Groups,
	}
	config.Contexts["x"] = &clientcmdapi.Context{Cluster: "c", AuthInfo: "u"}
	config.CurrentContext = "x"
	file := filepath.Join(t.TempDir(), "kubeconfig")
	if err := clientcmd.WriteToFile(*config, file); err != nil {
		t.Fatal(err)
	}
	return file
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// caller makes plain HTTPS requests with one identity.
type caller struct {
	client *http.Client
	url    string
}

// answer is the answer to a request.
type answer struct {
	code   int
	header http.Header
	body   []byte
}

func (a answer) String() string { return fmt.Sprintf("%d %s", a.code, a.body) }

// status decodes the body as a Status.
func (a answer) status(t testing.TB) metav1.Status {
	t.Helper()
	var s metav1.Status
	if err := json.Unmarshal(a.body, &s); err != nil || s.Kind != "Status" {
		t.Fatalf("the body is not a Status (%v): %s", err, a)
	}
	return s
}

func (a answer) decode(t testing.TB, into any) {
	t.Helper()
	if err := json.Unmarshal(a.body, into); err != nil {
		t.Fatalf("decode %s: %v", a, err)
	}
}

// callerFor returns a caller with the credentials of the configuration.
func callerFor(t testing.TB, config *rest.Config) *caller {
	t.Helper()
	client, err := rest.HTTPClientFor(config)
	if err != nil {
		t.Fatal(err)
	}
	return &caller{client: client, url: config.Host}
}

// bearer returns a caller with a bearer token. Without a token it is anonymous.
func bearer(t testing.TB, config *rest.Config, token string) *caller {
	t.Helper()
	return callerFor(t, bearing(config, token))
}

// bearing returns the configuration with the token as its only credential.
func bearing(config *rest.Config, token string) *rest.Config {
	config = rest.AnonymousClientConfig(config)
	config.BearerToken = token
	return config
}

// overHTTP1 returns a caller over HTTP/1.1 without a credential and without a limit on the size of its headers.
func overHTTP1(t testing.TB, config *rest.Config) *caller {
	t.Helper()
	tlsConfig, err := rest.TLSConfigFor(rest.AnonymousClientConfig(config))
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{
		TLSClientConfig: tlsConfig, MaxIdleConnsPerHost: 1000,
		TLSNextProto: map[string]func(string, *tls.Conn) http.RoundTripper{},
	}
	t.Cleanup(transport.CloseIdleConnections)
	return &caller{client: &http.Client{Transport: transport}, url: config.Host}
}

// try sends a request. headers are names and values in turn. A body without a Content-Type is JSON.
func (c *caller) try(ctx context.Context, method, path string, body []byte, headers ...string) (answer, error) {
	request, err := http.NewRequestWithContext(ctx, method, c.url+path, bytes.NewReader(body))
	if err != nil {
		return answer{}, err
	}
	if body != nil {
		request.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i+1 < len(headers); i += 2 {
		request.Header.Set(headers[i], headers[i+1])
	}
	response, err := c.client.Do(request)
	if err != nil {
		return answer{}, err
	}
	defer func() { _ = response.Body.Close() }()
	text, err := io.ReadAll(response.Body)
	return answer{response.StatusCode, response.Header, text}, err
}

// do sends a request that must be answered.
func (c *caller) do(t testing.TB, method, path string, body any, headers ...string) answer {
	t.Helper()
	got, err := c.try(t.Context(), method, path, encode(t, body), headers...)
	if err != nil {
		t.Fatalf("%s %s: %v", method, path, err)
	}
	return got
}

func (c *caller) get(t testing.TB, path string, headers ...string) answer {
	t.Helper()
	return c.do(t, http.MethodGet, path, nil, headers...)
}

// must sends a request, and fails the test if the answer is not a success.
func (c *caller) must(t testing.TB, method, path string, body any, headers ...string) answer {
	t.Helper()
	got := c.do(t, method, path, body, headers...)
	if got.code >= 300 {
		t.Fatalf("%s %s: %s", method, path, got)
	}
	return got
}

// encode returns body as bytes: bytes and strings as they are, nil as nil, and all else as JSON.
func encode(t testing.TB, body any) []byte {
	t.Helper()
	switch b := body.(type) {
	case nil:
		return nil
	case []byte:
		return b
	case string:
		return []byte(b)
	}
	data, err := json.Marshal(body)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func jsonInto(data []byte, into any) error { return json.Unmarshal(data, into) }

// accepted reports whether the answer has the status yes. Any status but yes and no is an error.
func accepted(got answer, err error, yes, no int) (bool, error) {
	switch {
	case err != nil:
		return false, err
	case got.code != yes && got.code != no:
		return false, fmt.Errorf("%s", got)
	}
	return got.code == yes, nil
}
