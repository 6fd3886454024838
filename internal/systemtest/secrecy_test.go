// Promise: no secret and no token is written to a log, an audit event, a metric or, unencrypted, to the disk.

package systemtest

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/utils/clock"

	"lanyard.dev/internal/datadir"
	"lanyard.dev/internal/etcd"
	"lanyard.dev/internal/signingkey"
)

// greedyPolicy asks for all that can be logged.
const greedyPolicy = `{"apiVersion":"audit.k8s.io/v1","kind":"Policy","rules":[{"level":"RequestResponse"}]}`

// openHouse is `lanyard serve` that says all it can: its own log at the highest level, and an audit log of everything.
type openHouse struct {
	dir     *datadir.Dir
	etcd    *etcd.Server
	program *program
	config  *rest.Config
}

func openUp(t *testing.T) *openHouse {
	t.Helper()
	root := t.TempDir()
	noErr := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	policy := filepath.Join(root, "policy.yaml")
	noErr(os.WriteFile(policy, []byte(greedyPolicy), 0o600))
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	noErr(err)
	address := listener.Addr().(*net.TCPAddr)
	noErr(listener.Close())
	url := "https://" + address.String()

	h := &openHouse{}
	h.dir, err = datadir.Open(filepath.Join(root, "data"))
	noErr(err)
	t.Cleanup(func() { _ = h.dir.Close() })
	certificates, err := h.dir.EnsureCertificates("127.0.0.1", clock.RealClock{})
	noErr(err)
	noErr(h.dir.EnsureKubeconfig(url, certificates))
	noErr(h.dir.EnsureEncryptionConfig())
	noErr(h.dir.EnsureSigningKey(func() ([]byte, error) {
		key, err := signingkey.Generate(signingkey.ES256)
		if err != nil {
			return nil, err
		}
		return key.MarshalPEM()
	}))
	etcdLog, err := os.Create(filepath.Join(root, "data", "etcd.log"))
	noErr(err)
	t.Cleanup(func() { _ = etcdLog.Close() })
	h.etcd, err = etcd.Start(t.Context(), etcd.Config{Dir: h.dir.EtcdDir(), Log: etcdLog, UnsafeNoFsync: true})
	noErr(err)
	t.Cleanup(func() { _ = h.etcd.Stop(t.Context()) })

	h.program = startProgram(t, filepath.Join(root, "data", "server.log"), "serve", "--v", "10",
		"--bind-address", "127.0.0.1", "--secure-port", fmt.Sprint(address.Port), "--etcd-servers", h.etcd.Endpoint(),
		"--tls-cert-file", h.dir.ServingCert(), "--tls-private-key-file", h.dir.ServingKey(), "--client-ca-file", h.dir.CACert(),
		"--service-account-issuer", url, "--service-account-signing-key-file", h.dir.SigningKey(),
		"--encryption-provider-config", h.dir.EncryptionConfig(), "--audit-log-path", h.dir.AuditLog(), "--audit-policy-file", policy,
		"--kubelet-client-certificate", h.dir.NodeClientCert(), "--kubelet-client-key", h.dir.NodeClientKey(), "--kubelet-certificate-authority", h.dir.NodesCACert())
	h.program.awaitLine(t, `lanyard serves https://`, 1)
	h.config, err = clientcmd.BuildConfigFromFlags("", h.dir.Kubeconfig())
	noErr(err)
	return h
}

// mark is a value that occurs nowhere else.
func mark() string {
	random := make([]byte, 24)
	_, _ = rand.Read(random)
	return "mark" + hex.EncodeToString(random)
}

// story is what a secrecy test has done, and what must not be found after it.
type story struct {
	t         *testing.T
	admin     *caller
	client    kubernetes.Interface
	config    *rest.Config
	namespace string
	hidden    map[string][]byte
	canary    string
}

// hide returns a new value that must stay hidden, under a name to report it by.
func (s *story) hide(name string) string {
	value := mark()
	s.hidden[name] = []byte(value)
	return value
}

func (s *story) noErr(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

// TestNothingSecretIsWrittenDown tells the whole story, and then reads every byte the server has left behind.
func TestNothingSecretIsWrittenDown(t *testing.T) {
	t.Parallel()
	h := openUp(t)
	s := &story{
		t: t, admin: callerFor(t, h.config), client: clientFor(t, h.config), config: h.config,
		namespace: "story", hidden: map[string][]byte{}, canary: mark(),
	}
	_, err := s.client.CoreV1().Namespaces().Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: s.namespace}}, metav1.CreateOptions{})
	s.noErr(err)
	_, err = s.client.CoreV1().ConfigMaps(s.namespace).Create(t.Context(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "canary"}, Data: map[string]string{"k": s.canary}}, metav1.CreateOptions{})
	s.noErr(err)
	s.secrets()
	s.refusedSecrets()
	s.tokens()
	s.sessions(h)

	metrics := s.admin.get(t, "/metrics")
	s.refuse("/metrics", metrics.body)
	if _, err := h.program.end(t, syscall.SIGTERM); err != nil {
		t.Errorf("lanyard ended with %v", err)
	}
	s.noErr(h.etcd.Stop(t.Context()))
	s.readEverything(h)
}

// secrets writes secret values in each way there is to write them.
func (s *story) secrets() {
	s.t.Helper()
	secrets, ctx := s.client.CoreV1().Secrets(s.namespace), s.t.Context()
	applied := `{"apiVersion":"v1","kind":"Secret","metadata":{"name":"s"},"stringData":{"z":"` + s.hide("last-applied annotation") + `"}}`
	made, err := secrets.Create(ctx, &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: "s", Annotations: map[string]string{corev1.LastAppliedConfigAnnotation: applied}},
		Data:       map[string][]byte{"a": []byte(s.hide("created data"))}, StringData: map[string]string{"b": s.hide("created stringData")},
	}, metav1.CreateOptions{})
	s.noErr(err)
	made.StringData = map[string]string{"c": s.hide("updated stringData")}
	made.Data["d"] = []byte(s.hide("updated data"))
	_, err = secrets.Update(ctx, made, metav1.UpdateOptions{})
	s.noErr(err)
	for kind, patch := range map[types.PatchType]string{
		types.MergePatchType:          `{"stringData":{"e":"` + s.hide("merge patch") + `"}}`,
		types.StrategicMergePatchType: `{"stringData":{"f":"` + s.hide("strategic patch") + `"}}`,
		types.JSONPatchType:           `[{"op":"add","path":"/data/g","value":"` + base64.StdEncoding.EncodeToString([]byte(s.hide("JSON patch"))) + `"}]`,
	} {
		_, err = secrets.Patch(ctx, "s", kind, []byte(patch), metav1.PatchOptions{})
		s.noErr(err)
	}
	path := "/api/v1/namespaces/" + s.namespace + "/secrets"
	apply := `{"apiVersion":"v1","kind":"Secret","metadata":{"name":"applied"},"stringData":{"a":"` + s.hide("server-side apply") + `"}}`
	for range 2 {
		s.admin.must(s.t, http.MethodPatch, path+"/applied?fieldManager=m&force=true", apply, "Content-Type", "application/apply-patch+yaml")
	}
	conflict := strings.Replace(apply, `"a":"`, `"a":"`+s.hide("conflicting apply"), 1)
	s.admin.do(s.t, http.MethodPatch, path+"/applied?fieldManager=other", conflict, "Content-Type", "application/apply-patch+yaml")
	s.admin.do(s.t, http.MethodPost, path+"?dryRun=All", `{"metadata":{"name":"dry"},"stringData":{"a":"`+s.hide("dry run")+`"}}`)
	s.admin.must(s.t, http.MethodGet, path, nil, "Accept", "application/json;as=Table;v=v1;g=meta.k8s.io")
	s.admin.must(s.t, http.MethodGet, path, nil, "Accept", protobufType)
	s.admin.must(s.t, http.MethodGet, path+"?watch=true&timeoutSeconds=1", nil)
	s.admin.must(s.t, http.MethodDelete, path+"/applied", nil)
	s.admin.must(s.t, http.MethodDelete, path+"?labelSelector=none", nil)
}

// refusedSecrets sends secret values in requests that are refused: the refusal may quote the request.
func (s *story) refusedSecrets() {
	s.t.Helper()
	path := "/api/v1/namespaces/" + s.namespace + "/secrets"
	object := func(name, more string) string {
		return `{"apiVersion":"v1","kind":"Secret","metadata":{"name":"` + name + `"}` + more + `}`
	}
	encoded := func(name string) string { return base64.StdEncoding.EncodeToString([]byte(s.hide(name))) }
	for _, body := range []string{
		object("bad key", `,"stringData":{"a":"`+s.hide("bad name")+`"}`),
		object("x", `,"stringData":{"a b":"`+s.hide("bad key")+`"}`),
		object("x", `,"data":{"a":"%`+s.hide("not base64")+`"}`),
		object("x", `,"data":"`+s.hide("data as a string")+`"`),
		object("x", `,"stringData":["`+s.hide("stringData as a list")+`"]`),
		object("x", `,"immutable":"`+s.hide("immutable as a string")+`"`),
		object("x", `,"immutable":"x","stringData":{"a":"`+s.hide("beside a bad field")+`"}`),
		object("x", `,"type":"kubernetes.io/dockerconfigjson","data":{".dockerconfigjson":"`+encoded("docker config")+`"}`),
		object("x", `,"type":"kubernetes.io/dockercfg","stringData":{".dockercfg":"`+s.hide("docker cfg")+`"}`),
		object("x", `,"type":"kubernetes.io/tls","stringData":{"tls.key":"`+s.hide("TLS key")+`"}`),
		`{"stringData":{"a":"` + s.hide("no kind") + `"},"immutable":1}`,
		`{"data":{"a":"` + s.hide("no kind, start of the body") + `"}`,
		`"` + s.hide("a string for a body") + `"`,
		s.hide("no JSON"),
		object("x", `,"stringData":{"a":"`+s.hide("cut short")),
	} {
		for _, mediaType := range []string{jsonType, yamlType} {
			s.refused(http.MethodPost, path+"?fieldValidation=Strict", body, mediaType)
		}
		s.refused(http.MethodPut, path+"/s?fieldValidation=Strict", body, jsonType)
		s.refused(http.MethodPost, path+"/x/y", body, jsonType)
		s.refused(http.MethodPost, "/api/v1/namespaces/"+s.namespace+"/secret", body, jsonType)
	}
	s.refused(http.MethodPost, path, object("s", `,"stringData":{"a":"`+s.hide("already exists")+`"}`), jsonType)
	for mediaType, patches := range map[string][]string{
		"application/merge-patch+json":           {`{"immutable":"x","stringData":{"a":"` + s.hide("bad merge patch") + `"}}`, `{"data":"` + s.hide("bad merge patch of data") + `"}`, `{"nope":"` + s.hide("unknown field") + `"}`},
		"application/strategic-merge-patch+json": {`{"immutable":"x","stringData":{"a":"` + s.hide("bad strategic patch") + `"}}`, `{"nope":1,"stringData":{"a":"` + s.hide("strategic patch with an unknown field") + `"}}`},
		"application/json-patch+json":            {`[{"op":"test","path":"/data/a","value":"` + s.hide("failed test") + `"}]`, `[{"op":"add","path":"/data","value":"` + s.hide("bad JSON patch") + `"}]`, `[{"op":"` + s.hide("bad op") + `"}]`},
		"application/apply-patch+yaml":           {object("s", `,"nope":"`+s.hide("bad apply")+`"`), object("s", `,"data":"`+s.hide("bad apply of data")+`"`), "a: b: " + s.hide("bad YAML")},
	} {
		for _, patch := range patches {
			s.refused(http.MethodPatch, path+"/s?fieldManager=m&fieldValidation=Strict", patch, mediaType)
		}
	}
}

func (s *story) refused(method, path, body, mediaType string) {
	s.t.Helper()
	if got := s.admin.do(s.t, method, path, body, "Content-Type", mediaType); got.code < 400 {
		s.t.Errorf("%s %s was not refused: %s", method, body, got)
	}
}

// tokens has tokens issued, used, reviewed and refused.
func (s *story) tokens() {
	s.t.Helper()
	ctx, core := s.t.Context(), s.client.CoreV1()
	_, err := core.Pods(s.namespace).Create(ctx, podOn(""), metav1.CreateOptions{})
	s.noErr(err)
	for name, ref := range map[string]*authenticationv1.BoundObjectReference{
		"plain": nil, "pod's": {APIVersion: "v1", Kind: "Pod", Name: "p"}, "secret's": {APIVersion: "v1", Kind: "Secret", Name: "s"},
	} {
		request := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{BoundObjectRef: ref}}
		issued, err := core.ServiceAccounts(s.namespace).CreateToken(ctx, "default", request, metav1.CreateOptions{})
		s.noErr(err)
		s.use(name, issued.Status.Token)
	}
	s.noErr(core.Pods(s.namespace).Delete(ctx, "p", metav1.DeleteOptions{}))
	s.noErr(core.Secrets(s.namespace).Delete(ctx, "s", metav1.DeleteOptions{}))
	for name, token := range s.hidden {
		if strings.HasSuffix(name, " token") {
			s.present(string(token))
		}
	}
	opaque := s.hide("opaque bearer")
	s.present(opaque)
	s.present(segment(`{"alg":"none"}`) + "." + segment(`{"iss":"`+s.config.Host+`"}`) + "." + s.hide("signature of a forged token"))
	s.admin.do(s.t, http.MethodPost, "/apis/authentication.k8s.io/v1/tokenreviews", `{"spec":{"token":{"x":"`+s.hide("token as an object")+`"}}}`)
	s.admin.do(s.t, http.MethodPost, "/apis/authentication.k8s.io/v1/tokenreviews?fieldValidation=Strict", `{"spec":{"token":"`+s.hide("token beside an unknown field")+`","nope":1}}`)
	s.admin.do(s.t, http.MethodPost, "/apis/authentication.k8s.io/v1/tokenreviews", `{"spec":{"token":"`+s.hide("token cut short"))
}

// sessions runs commands in a pod: they, what goes in and what comes out may be secret.
func (s *story) sessions(h *openHouse) {
	s.t.Helper()
	node := newBareNode(s.t, h.dir.Path(), s.client)
	pod := podOn("bare")
	pod.Name = "session"
	_, err := s.client.CoreV1().Pods(s.namespace).Create(s.t.Context(), pod, metav1.CreateOptions{})
	s.noErr(err)
	node.runs(pod)
	for name, spdy := range map[string]bool{"WebSocket": false, "SPDY": true} {
		secret, typed := s.hide(name+" command"), s.hide(name+" input")
		session := kubectl(s.t, h.dir.Kubeconfig(), s.namespace, spdy, "exec", "-i", "session", "--", "sh", "-c", "echo "+secret+"; cat")
		session.Stdin = strings.NewReader(typed)
		if stdout, stderr, code := says(s.t, session); stdout != secret+"\n"+typed || code != 0 {
			s.t.Errorf("%s: got %q, %q, %d", name, stdout, stderr, code)
		}
		says(s.t, kubectl(s.t, h.dir.Kubeconfig(), s.namespace, spdy, "exec", "session", "-c", "none", "--", s.hide(name+" refused command")))
		says(s.t, kubectl(s.t, h.dir.Kubeconfig(), s.namespace, spdy, "exec", "session", "--as", "nobody", "--", s.hide(name+" forbidden command")))
		node.stop()
		says(s.t, kubectl(s.t, h.dir.Kubeconfig(), s.namespace, spdy, "exec", "session", "--", s.hide(name+" command without a node")))
		node.start()
	}
}

// use presents a token that holds, in each way.
func (s *story) use(name, token string) {
	s.t.Helper()
	s.hidden[name+" token"] = []byte(token)
	s.hidden[name+" signature"] = []byte(token[strings.LastIndex(token, ".")+1:])
	s.present(token)
	holder := bearer(s.t, s.config, token)
	holder.must(s.t, http.MethodPost, whoAmIPath, `{}`)
	holder.get(s.t, "/api/v1/secrets")
	holder.get(s.t, "/api/v1/namespaces/"+s.namespace+"/configmaps?watch=true")
	holder.do(s.t, http.MethodGet, "/api", nil, "Impersonate-User", "x")
}

// present shows a token to the server as bearer, good or not, and for review.
func (s *story) present(token string) {
	s.t.Helper()
	for _, changed := range []string{token, token + "A", token[:len(token)-3]} {
		if changed != token {
			s.hidden["changed "+token] = []byte(changed)
		}
		bearer(s.t, s.config, changed).do(s.t, http.MethodPost, whoAmIPath, `{}`)
		protocol := webSocketProtocol(changed)
		s.hidden["subprotocol of "+changed] = []byte(protocol)
		overHTTP1(s.t, s.config).get(s.t, "/api", "Connection", "Upgrade", "Upgrade", "websocket", "Sec-WebSocket-Protocol", "v1, "+protocol)
		review := authenticationv1.TokenReview{Spec: authenticationv1.TokenReviewSpec{Token: changed, Audiences: []string{"x", s.config.Host}}}
		s.admin.must(s.t, http.MethodPost, "/apis/authentication.k8s.io/v1/tokenreviews", review)
	}
}

// disguises are the forms in which a value could have been written.
func disguises(value []byte) map[string][]byte {
	// Inside longer base64 the value's own starts at any of three places; what its neighbours share in is cut off.
	forms := map[string][]byte{"plain": value, "decimal": []byte(strings.Trim(fmt.Sprint(value), "[]")), "Go": []byte(strings.TrimSuffix(strings.TrimPrefix(fmt.Sprintf("%#v", value), "[]byte{"), "}"))}
	for shift := range 3 {
		text := base64.StdEncoding.EncodeToString(append(make([]byte, shift), value...))
		end := len(text) - 4
		forms[fmt.Sprintf("base64 at %d", shift)] = []byte(text[4:end])
	}
	return forms
}

// refuse fails the test for each hidden value in the text, or for as much of one as gives it away.
func (s *story) refuse(where string, text []byte) {
	s.t.Helper()
	for name, value := range s.hidden {
		for form, disguised := range disguises(value) {
			if at := bytes.Index(text, disguised); at >= 0 {
				s.t.Errorf("%s holds the %s, %s: ...%s...", where, name, form, text[max(0, at-300):min(len(text), at+len(disguised)+100)])
			}
		}
		if start := value[:min(len(value), 16)]; bytes.HasPrefix(value, []byte("mark")) && bytes.Contains(text, start) {
			at := bytes.Index(text, start)
			s.t.Errorf("%s holds the start of the %s: ...%s...", where, name, text[max(0, at-300):min(len(text), at+100)])
		}
	}
}

// readEverything reads every file of the data directory, the logs among them. That the canary, which is no secret, is
// found shows that the reading can find something.
func (s *story) readEverything(h *openHouse) {
	s.t.Helper()
	found := map[string]bool{}
	err := filepath.WalkDir(h.dir.Path(), func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() {
			return err
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		s.refuse(path, text)
		if bytes.Contains(text, []byte(s.canary)) {
			found[strings.Split(strings.TrimPrefix(path, h.dir.Path()+"/"), "/")[0]] = true
		}
		return nil
	})
	s.noErr(err)
	if !found["etcd"] || !found["audit"] {
		s.t.Errorf("the canary was found in %v; want it in etcd and in the audit log", found)
	}
	log, err := os.ReadFile(h.program.log)
	s.noErr(err)
	if want := "/api/v1/namespaces/" + s.namespace + "/secrets"; !bytes.Contains(log, []byte(want)) {
		s.t.Errorf("the server's log at the highest level does not name %s", want)
	}
	refused := regexp.MustCompile(`level=WARN msg="Refused the credential of a request reason=\\".+\\" client=\\"127\.0\.0\.1:\d+\\" userAgent=\\".+\\" method=\\"POST\\" path=\\"\S+\\" kid=\\"[\w-]{43}\\" jti=\\"[\w-]{36}\\"`)
	if !refused.Match(log) {
		lines := regexp.MustCompile(`.*Refused the credential.*`).FindAllString(string(log), 3)
		s.t.Errorf("the server's log does not say where a refused token came from, as %s asks for; it has %q", refused, lines)
	}
	audit, err := os.ReadFile(h.dir.AuditLog())
	s.noErr(err)
	for _, want := range []string{`"level":"RequestResponse"`, `"authentication.kubernetes.io/issued-credential-id"`, `"authentication.kubernetes.io/credential-id"`} {
		if !bytes.Contains(audit, []byte(want)) {
			s.t.Errorf("the audit log lacks %s", want)
		}
	}
}
