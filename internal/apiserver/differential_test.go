package apiserver_test

import (
	"bytes"
	"cmp"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"lanyard.dev/internal/apiserver"
	"lanyard.dev/internal/apiserver/api"
	"lanyard.dev/internal/apiserver/auditlog"
	"lanyard.dev/internal/nodeaccess"
)

// differences lists, by name, the requests that the ephemeral handler answers differently from the library's handler,
// each with the reason. There are none, since the ephemeral handler passes every unusual request on to the library's
// handler.
var differences = map[string]string{}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// rig is an authority with both handlers.
type rig struct {
	whole, library *httptest.Server
	callers        map[string]*http.Client
	codecs         serializer.CodecFactory
	log            string
	passed         atomic.Int64 // requests that the ephemeral handler passed on
}

const everyRequest = "apiVersion: audit.k8s.io/v1\nkind: Policy\nrules: [{level: RequestResponse}]\n"

func newRig(t *testing.T) *rig {
	t.Helper()
	s := newSite(t)
	d := &rig{log: s.file("audit.log"), callers: map[string]*http.Client{}, codecs: serializer.NewCodecFactory(api.All().NewScheme())}
	must(t, os.WriteFile(s.file("policy.yaml"), []byte(everyRequest), 0o600))
	var server *apiserver.Server
	r := s.startBy(t, func(o *apiserver.Options) {
		o.Etcd.SoleWriter = true
		o.Audit = auditlog.Options{LogPath: d.log, PolicyFile: s.file("policy.yaml")}
	}, func(o apiserver.Options) (*apiserver.Server, error) {
		made, err := apiserver.New(o)
		server = made
		return made, err
	})
	fill(t, r.admin)
	whole, library := server.Handlers(&d.passed)
	d.whole, d.library = listen(t, whole), listen(t, library)
	now := time.Now()
	for name, as := range map[string]struct {
		user  string
		group []string
	}{"": {"admin", []string{"system:masters"}}, "stranger": {"stranger", nil}, "node": {nodeaccess.User("n"), []string{nodeaccess.Group}}} {
		pair, err := s.ca.NewClient(as.user, as.group, now)
		must(t, err)
		certificate, err := tls.X509KeyPair(pair.CertPEM, pair.KeyPEM)
		must(t, err)
		d.callers[name] = client(d.whole, certificate)
	}
	d.callers["anonymous"] = client(d.whole)
	return d
}

func listen(t *testing.T, h http.Handler) *httptest.Server {
	t.Helper()
	s := httptest.NewUnstartedServer(h)
	s.TLS = &tls.Config{ClientAuth: tls.RequestClientCert}
	s.StartTLS()
	t.Cleanup(s.Close)
	return s
}

// client returns a client that trusts the certificate of both servers of a rig.
func client(s *httptest.Server, certificates ...tls.Certificate) *http.Client {
	transport := s.Client().Transport.(*http.Transport).Clone()
	transport.DisableCompression = true
	transport.TLSClientConfig.Certificates = certificates
	return &http.Client{Transport: transport}
}

// fill makes the objects that the requests name.
func fill(t *testing.T, admin *rest.Config) {
	t.Helper()
	c, ctx := kubernetes.NewForConfigOrDie(admin).CoreV1(), t.Context()
	held := metav1.ObjectMeta{Name: "ending", Finalizers: []string{"example.com/hold"}}
	_, err := c.Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "ending"}}, metav1.CreateOptions{})
	must(t, err)
	for _, namespace := range []string{"default", "ending"} {
		for _, meta := range []metav1.ObjectMeta{held, {Name: "app", Finalizers: held.Finalizers}} {
			_, err := c.ServiceAccounts(namespace).Create(ctx, &corev1.ServiceAccount{ObjectMeta: meta}, metav1.CreateOptions{})
			must(t, err)
		}
	}
	must(t, c.ServiceAccounts("default").Delete(ctx, "ending", metav1.DeleteOptions{}))
	must(t, c.Namespaces().Delete(ctx, "ending", metav1.DeleteOptions{}))
}

// answer is the result of a probe, without the parts that differ between any two requests.
type answer struct {
	status  int
	header  http.Header
	body    string
	audited []string
}

var (
	anyJWT  = regexp.MustCompile(`eyJ[\w-]+\.[\w-]+\.[\w-]+`)
	anyTime = regexp.MustCompile(`\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z`)
	anyJTI  = regexp.MustCompile(`JTI=[\w-]+`)
)

func withoutChance(text string) string {
	return anyJTI.ReplaceAllString(anyTime.ReplaceAllString(anyJWT.ReplaceAllString(text, "JWT"), "TIME"), "JTI=ID")
}

func (d *rig) ask(t *testing.T, to *httptest.Server, p probe, id string) *answer {
	t.Helper()
	url := to.URL + p.path
	if p.query != "" {
		url += "?" + p.query
	}
	r, err := http.NewRequestWithContext(t.Context(), p.method, url, bytes.NewReader(p.body))
	must(t, err)
	r.Header.Set("Audit-ID", id)
	r.Header.Set("User-Agent", "test/1")
	for name, value := range p.header {
		r.Header.Set(name, value)
		if value == "" {
			r.Header.Del(name)
		}
	}
	response, err := d.callers[p.caller].Do(r)
	must(t, err)
	body, err := io.ReadAll(response.Body)
	must(t, err)
	must(t, response.Body.Close())
	got := &answer{status: response.StatusCode, header: response.Header}
	for _, varying := range []string{"Date", "Audit-Id", "Content-Length"} {
		got.header.Del(varying)
	}
	if response.Header.Get("Content-Type") == protobuf {
		obj, _, err := d.codecs.UniversalDeserializer().Decode(body, nil, nil)
		must(t, err)
		body, err = json.Marshal(obj)
		must(t, err)
	}
	got.body = withoutChance(string(body))
	return got
}

// events returns the audit events by the ID of the request, once the last event of each request is there.
func (d *rig) events(t *testing.T, ids int) map[string][]string {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		text, err := os.ReadFile(d.log)
		must(t, err)
		found, ended := map[string][]string{}, map[string]bool{}
		for line := range strings.Lines(string(text)) {
			var e map[string]any
			if json.Unmarshal([]byte(line), &e) != nil {
				break // this line is being written
			}
			id, _ := e["auditID"].(string)
			if !strings.HasPrefix(id, "probe-") {
				continue
			}
			// A request that is refused before its audit begins has one event.
			result, _ := e["responseStatus"].(map[string]any)
			code, _ := result["code"].(float64)
			if e["stage"] == "ResponseComplete" || e["stage"] == "ResponseStarted" && code >= 400 {
				ended[id] = true
			}
			for _, varying := range []string{"auditID", "requestReceivedTimestamp", "stageTimestamp"} {
				delete(e, varying)
			}
			if notes, ok := e["annotations"].(map[string]any); ok {
				maps.DeleteFunc(notes, func(key string, _ any) bool { return strings.HasPrefix(key, "apiserver.latency") })
			}
			rest, err := json.Marshal(e)
			must(t, err)
			found[id] = append(found[id], withoutChance(string(rest)))
		}
		if len(ended) == ids {
			return found
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d of %d requests have their last audit event", len(ended), ids)
		}
	}
}

// TestEphemeralHandlerAnswersLikeTheLibrary sends the same requests, valid and hostile, to the ephemeral handler and to
// the library's, and compares status, headers, body and audit events.
func TestEphemeralHandlerAnswersLikeTheLibrary(t *testing.T) {
	t.Parallel()
	d := newRig(t)
	all := probes(t, d.codecs)
	names := slices.Sorted(maps.Keys(all))
	type pair struct{ whole, library *answer }
	answers := make([]pair, len(names))
	created, plain := 0, []string{"JSON/valid", "YAML/valid", "protobuf/valid", "JSON/Strict/valid", "JSON/Ignore/unknown field", "JSON/without a kind", "accept protobuf", "pretty"}
	for i, name := range names {
		passed := d.passed.Load()
		answers[i].whole = d.ask(t, d.whole, all[name], fmt.Sprint("probe-whole-", i))
		answers[i].library = d.ask(t, d.library, all[name], fmt.Sprint("probe-library-", i))
		if answers[i].whole.status == http.StatusCreated {
			created++
		}
		if slices.Contains(plain, name[strings.Index(name, "/")+1:]) && d.passed.Load() != passed {
			t.Errorf("%s: the ephemeral handler passes it on", name)
		}
	}
	audited := d.events(t, 2*len(names))
	if created < 100 || created > len(names)-100 {
		t.Errorf("%d of %d requests are answered: the tables lack good or bad ones", created, len(names))
	}
	for i, name := range names {
		whole, library := answers[i].whole, answers[i].library
		whole.audited, library.audited = audited[fmt.Sprint("probe-whole-", i)], audited[fmt.Sprint("probe-library-", i)]
		found := whole.diff(library)
		switch reason, expected := differences[name]; {
		case expected && found == "":
			t.Errorf("%s: no difference, but one is expected: %s", name, reason)
		case !expected && found != "":
			t.Errorf("%s: %s", name, found)
		}
	}
	t.Logf("%d requests, %d answered with an object", len(names), created)
}

func (a *answer) diff(b *answer) string {
	var found []string
	for what, values := range map[string][2]string{
		"status": {fmt.Sprint(a.status), fmt.Sprint(b.status)}, "headers": {fmt.Sprint(a.header), fmt.Sprint(b.header)}, "body": {a.body, b.body},
		"audit": {strings.Join(a.audited, "\n"), strings.Join(b.audited, "\n")},
	} {
		if values[0] != values[1] {
			found = append(found, fmt.Sprintf("%s:\n ephemeral %.2000s\n library   %.2000s", what, cmp.Or(values[0], "none"), cmp.Or(values[1], "none")))
		}
	}
	slices.Sort(found)
	return strings.Join(found, "\n")
}
