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

// greedyPolicy requests that everything is recorded.
const greedyPolicy = `{"apiVersion":"audit.k8s.io/v1","kind":"Policy","rules":[{"level":"RequestResponse"}]}`

// verboseServer is a `lanyard serve` that logs at the highest level and has an audit policy of RequestResponse for
// everything.
type verboseServer struct {
	dir     *datadir.Dir
	etcd    *etcd.Server
	program *program
	config  *rest.Config
}

// startVerboseServer starts a verboseServer with an etcd and a data directory of its own.
func startVerboseServer(t *testing.T) *verboseServer {
	t.Helper()
	root := t.TempDir()
	policy := filepath.Join(root, "policy.yaml")
	must(t, os.WriteFile(policy, []byte(greedyPolicy), 0o600))
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	address := listener.Addr().(*net.TCPAddr)
	must(t, listener.Close())
	url := "https://" + address.String()

	h := &verboseServer{}
	h.dir, err = datadir.Open(filepath.Join(root, "data"))
	must(t, err)
	t.Cleanup(func() { _ = h.dir.Close() })
	certificates, err := h.dir.EnsureCertificates("127.0.0.1", clock.RealClock{})
	must(t, err)
	must(t, h.dir.EnsureKubeconfig(url, certificates))
	must(t, h.dir.EnsureEncryptionConfig())
	must(t, h.dir.EnsureSigningKey(h.dir.SigningKey(), func() ([]byte, error) {
		key, err := signingkey.Generate(signingkey.ES256)
		if err != nil {
			return nil, err
		}
		return key.MarshalPEM()
	}))
	etcdLog, err := os.Create(filepath.Join(root, "data", "etcd.log"))
	must(t, err)
	t.Cleanup(func() { _ = etcdLog.Close() })
	h.etcd, err = etcd.Start(t.Context(), etcd.Config{Dir: h.dir.EtcdDir(), Log: etcdLog, UnsafeNoFsync: true})
	must(t, err)
	t.Cleanup(func() { _ = h.etcd.Stop(t.Context()) })

	h.program = startProgram(t, filepath.Join(root, "data", "server.log"), "serve", "--v", "10",
		"--bind-address", "127.0.0.1", "--secure-port", fmt.Sprint(address.Port), "--etcd-servers", h.etcd.Endpoint(),
		"--tls-cert-file", h.dir.ServingCert(), "--tls-private-key-file", h.dir.ServingKey(), "--client-ca-file", h.dir.CACert(),
		"--service-account-issuer", url, "--service-account-signing-key-file", h.dir.SigningKey(),
		"--encryption-provider-config", h.dir.EncryptionConfig(), "--audit-log-path", h.dir.AuditLog(), "--audit-policy-file", policy,
		"--kubelet-client-certificate", h.dir.NodeClientCert(), "--kubelet-client-key", h.dir.NodeClientKey(), "--kubelet-certificate-authority", h.dir.NodesCACert())
	h.program.awaitLine(t, `lanyard serves https://`, 1)
	h.config, err = clientcmd.BuildConfigFromFlags("", h.dir.Kubeconfig())
	must(t, err)
	return h
}

// newMarker returns a random value that occurs nowhere else.
func newMarker() string {
	random := make([]byte, 24)
	_, _ = rand.Read(random)
	return "mark" + hex.EncodeToString(random)
}

// secrecyTest sends secret values to a server and then looks for them in everything that the server has written.
type secrecyTest struct {
	t         *testing.T
	admin     *caller
	client    kubernetes.Interface
	config    *rest.Config
	namespace string
	hidden    map[string][]byte // the secret values, by a name for error messages
	canary    string
}

// newSecret returns a new secret value, and remembers it under a name for error messages.
func (s *secrecyTest) newSecret(name string) string {
	value := newMarker()
	s.hidden[name] = []byte(value)
	return value
}

// TestNoSecretIsWrittenDown sends secrets in every way, and then reads every byte that the server has written.
func TestNoSecretIsWrittenDown(t *testing.T) {
	t.Parallel()
	h := startVerboseServer(t)
	s := &secrecyTest{
		t: t, admin: callerFor(t, h.config), client: clientFor(t, h.config), config: h.config,
		namespace: "story", hidden: map[string][]byte{}, canary: newMarker(),
	}
	_, err := s.client.CoreV1().Namespaces().Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: s.namespace}}, metav1.CreateOptions{})
	must(s.t, err)
	_, err = s.client.CoreV1().ConfigMaps(s.namespace).Create(t.Context(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "canary"}, Data: map[string]string{"k": s.canary}}, metav1.CreateOptions{})
	must(s.t, err)
	s.writeSecrets()
	s.sendRefusedSecrets()
	s.useTokens()
	s.runSessions(h)

	metrics := s.admin.get(t, "/metrics")
	s.checkAbsent("/metrics", metrics.body)
	if _, err := h.program.end(t, syscall.SIGTERM); err != nil {
		t.Errorf("lanyard ended with %v", err)
	}
	must(s.t, h.etcd.Stop(t.Context()))
	s.checkFiles(h)
}

// writeSecrets writes secret values in each way that the API has.
func (s *secrecyTest) writeSecrets() {
	s.t.Helper()
	secrets, ctx := s.client.CoreV1().Secrets(s.namespace), s.t.Context()
	applied := `{"apiVersion":"v1","kind":"Secret","metadata":{"name":"s"},"stringData":{"z":"` + s.newSecret("last-applied annotation") + `"}}`
	made, err := secrets.Create(ctx, &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: "s", Annotations: map[string]string{corev1.LastAppliedConfigAnnotation: applied}},
		Data:       map[string][]byte{"a": []byte(s.newSecret("created data"))}, StringData: map[string]string{"b": s.newSecret("created stringData")},
	}, metav1.CreateOptions{})
	must(s.t, err)
	made.StringData = map[string]string{"c": s.newSecret("updated stringData")}
	made.Data["d"] = []byte(s.newSecret("updated data"))
	_, err = secrets.Update(ctx, made, metav1.UpdateOptions{})
	must(s.t, err)
	for kind, patch := range map[types.PatchType]string{
		types.MergePatchType:          `{"stringData":{"e":"` + s.newSecret("merge patch") + `"}}`,
		types.StrategicMergePatchType: `{"stringData":{"f":"` + s.newSecret("strategic patch") + `"}}`,
		types.JSONPatchType:           `[{"op":"add","path":"/data/g","value":"` + base64.StdEncoding.EncodeToString([]byte(s.newSecret("JSON patch"))) + `"}]`,
	} {
		_, err = secrets.Patch(ctx, "s", kind, []byte(patch), metav1.PatchOptions{})
		must(s.t, err)
	}
	path := "/api/v1/namespaces/" + s.namespace + "/secrets"
	apply := `{"apiVersion":"v1","kind":"Secret","metadata":{"name":"applied"},"stringData":{"a":"` + s.newSecret("server-side apply") + `"}}`
	for range 2 {
		s.admin.must(s.t, http.MethodPatch, path+"/applied?fieldManager=m&force=true", apply, "Content-Type", "application/apply-patch+yaml")
	}
	conflict := strings.Replace(apply, `"a":"`, `"a":"`+s.newSecret("conflicting apply"), 1)
	s.admin.do(s.t, http.MethodPatch, path+"/applied?fieldManager=other", conflict, "Content-Type", "application/apply-patch+yaml")
	s.admin.do(s.t, http.MethodPost, path+"?dryRun=All", `{"metadata":{"name":"dry"},"stringData":{"a":"`+s.newSecret("dry run")+`"}}`)
	s.admin.must(s.t, http.MethodGet, path, nil, "Accept", "application/json;as=Table;v=v1;g=meta.k8s.io")
	s.admin.must(s.t, http.MethodGet, path, nil, "Accept", protobufType)
	s.admin.must(s.t, http.MethodGet, path+"?watch=true&timeoutSeconds=1", nil)
	s.admin.must(s.t, http.MethodDelete, path+"/applied", nil)
	s.admin.must(s.t, http.MethodDelete, path+"?labelSelector=none", nil)
}

// sendRefusedSecrets sends secret values in requests that are refused, because an error message may quote its request.
func (s *secrecyTest) sendRefusedSecrets() {
	s.t.Helper()
	path := "/api/v1/namespaces/" + s.namespace + "/secrets"
	object := func(name, more string) string {
		return `{"apiVersion":"v1","kind":"Secret","metadata":{"name":"` + name + `"}` + more + `}`
	}
	encoded := func(name string) string { return base64.StdEncoding.EncodeToString([]byte(s.newSecret(name))) }
	for _, body := range []string{
		object("bad key", `,"stringData":{"a":"`+s.newSecret("bad name")+`"}`),
		object("x", `,"stringData":{"a b":"`+s.newSecret("bad key")+`"}`),
		object("x", `,"data":{"a":"%`+s.newSecret("not base64")+`"}`),
		object("x", `,"data":"`+s.newSecret("data as a string")+`"`),
		object("x", `,"stringData":["`+s.newSecret("stringData as a list")+`"]`),
		object("x", `,"immutable":"`+s.newSecret("immutable as a string")+`"`),
		object("x", `,"immutable":"x","stringData":{"a":"`+s.newSecret("beside a bad field")+`"}`),
		object("x", `,"type":"kubernetes.io/dockerconfigjson","data":{".dockerconfigjson":"`+encoded("docker config")+`"}`),
		object("x", `,"type":"kubernetes.io/dockercfg","stringData":{".dockercfg":"`+s.newSecret("docker cfg")+`"}`),
		object("x", `,"type":"kubernetes.io/tls","stringData":{"tls.key":"`+s.newSecret("TLS key")+`"}`),
		`{"stringData":{"a":"` + s.newSecret("no kind") + `"},"immutable":1}`,
		`{"data":{"a":"` + s.newSecret("no kind, start of the body") + `"}`,
		`"` + s.newSecret("a string for a body") + `"`,
		s.newSecret("no JSON"),
		object("x", `,"stringData":{"a":"`+s.newSecret("cut short")),
	} {
		for _, mediaType := range []string{jsonType, yamlType} {
			s.expectRefused(http.MethodPost, path+"?fieldValidation=Strict", body, mediaType)
		}
		s.expectRefused(http.MethodPut, path+"/s?fieldValidation=Strict", body, jsonType)
		s.expectRefused(http.MethodPost, path+"/x/y", body, jsonType)
		s.expectRefused(http.MethodPost, "/api/v1/namespaces/"+s.namespace+"/secret", body, jsonType)
	}
	s.expectRefused(http.MethodPost, path, object("s", `,"stringData":{"a":"`+s.newSecret("already exists")+`"}`), jsonType)
	for mediaType, patches := range map[string][]string{
		"application/merge-patch+json":           {`{"immutable":"x","stringData":{"a":"` + s.newSecret("bad merge patch") + `"}}`, `{"data":"` + s.newSecret("bad merge patch of data") + `"}`, `{"nope":"` + s.newSecret("unknown field") + `"}`},
		"application/strategic-merge-patch+json": {`{"immutable":"x","stringData":{"a":"` + s.newSecret("bad strategic patch") + `"}}`, `{"nope":1,"stringData":{"a":"` + s.newSecret("strategic patch with an unknown field") + `"}}`},
		"application/json-patch+json":            {`[{"op":"test","path":"/data/a","value":"` + s.newSecret("failed test") + `"}]`, `[{"op":"add","path":"/data","value":"` + s.newSecret("bad JSON patch") + `"}]`, `[{"op":"` + s.newSecret("bad op") + `"}]`},
		"application/apply-patch+yaml":           {object("s", `,"nope":"`+s.newSecret("bad apply")+`"`), object("s", `,"data":"`+s.newSecret("bad apply of data")+`"`), "a: b: " + s.newSecret("bad YAML")},
	} {
		for _, patch := range patches {
			s.expectRefused(http.MethodPatch, path+"/s?fieldManager=m&fieldValidation=Strict", patch, mediaType)
		}
	}
}

// expectRefused sends a request and expects an error.
func (s *secrecyTest) expectRefused(method, path, body, mediaType string) {
	s.t.Helper()
	if got := s.admin.do(s.t, method, path, body, "Content-Type", mediaType); got.code < 400 {
		s.t.Errorf("%s %s was not refused: %s", method, body, got)
	}
}

// useTokens has tokens issued, used, reviewed and refused.
func (s *secrecyTest) useTokens() {
	s.t.Helper()
	ctx, core := s.t.Context(), s.client.CoreV1()
	_, err := core.Pods(s.namespace).Create(ctx, podOn(""), metav1.CreateOptions{})
	must(s.t, err)
	for name, ref := range map[string]*authenticationv1.BoundObjectReference{
		"plain": nil, "pod's": {APIVersion: "v1", Kind: "Pod", Name: "p"}, "secret's": {APIVersion: "v1", Kind: "Secret", Name: "s"},
	} {
		request := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{BoundObjectRef: ref}}
		issued, err := core.ServiceAccounts(s.namespace).CreateToken(ctx, "default", request, metav1.CreateOptions{})
		must(s.t, err)
		s.useToken(name, issued.Status.Token)
	}
	must(s.t, core.Pods(s.namespace).Delete(ctx, "p", metav1.DeleteOptions{}))
	must(s.t, core.Secrets(s.namespace).Delete(ctx, "s", metav1.DeleteOptions{}))
	for name, token := range s.hidden {
		if strings.HasSuffix(name, " token") {
			s.presentToken(string(token))
		}
	}
	opaque := s.newSecret("opaque bearer")
	s.presentToken(opaque)
	s.presentToken(segment(`{"alg":"none"}`) + "." + segment(`{"iss":"`+s.config.Host+`"}`) + "." + s.newSecret("signature of a forged token"))
	s.admin.do(s.t, http.MethodPost, "/apis/authentication.k8s.io/v1/tokenreviews", `{"spec":{"token":{"x":"`+s.newSecret("token as an object")+`"}}}`)
	s.admin.do(s.t, http.MethodPost, "/apis/authentication.k8s.io/v1/tokenreviews?fieldValidation=Strict", `{"spec":{"token":"`+s.newSecret("token beside an unknown field")+`","nope":1}}`)
	s.admin.do(s.t, http.MethodPost, "/apis/authentication.k8s.io/v1/tokenreviews", `{"spec":{"token":"`+s.newSecret("token cut short"))
}

// runSessions runs commands in a pod. The commands, their input and their output are secret.
func (s *secrecyTest) runSessions(h *verboseServer) {
	s.t.Helper()
	node := newBareNode(s.t, h.dir.Path(), s.client)
	pod := podOn("bare")
	pod.Name = "session"
	_, err := s.client.CoreV1().Pods(s.namespace).Create(s.t.Context(), pod, metav1.CreateOptions{})
	must(s.t, err)
	node.setRunningPod(pod)
	for name, spdy := range map[string]bool{"WebSocket": false, "SPDY": true} {
		secret, typed := s.newSecret(name+" command"), s.newSecret(name+" input")
		session := kubectl(s.t, h.dir.Kubeconfig(), s.namespace, spdy, "exec", "-i", "session", "--", "sh", "-c", "echo "+secret+"; cat")
		session.Stdin = strings.NewReader(typed)
		if stdout, stderr, code := runCommand(s.t, session); stdout != secret+"\n"+typed || code != 0 {
			s.t.Errorf("%s: got %q, %q, %d", name, stdout, stderr, code)
		}
		runCommand(s.t, kubectl(s.t, h.dir.Kubeconfig(), s.namespace, spdy, "exec", "session", "-c", "none", "--", s.newSecret(name+" refused command")))
		runCommand(s.t, kubectl(s.t, h.dir.Kubeconfig(), s.namespace, spdy, "exec", "session", "--as", "nobody", "--", s.newSecret(name+" forbidden command")))
		node.stop()
		runCommand(s.t, kubectl(s.t, h.dir.Kubeconfig(), s.namespace, spdy, "exec", "session", "--", s.newSecret(name+" command without a node")))
		node.start()
	}
}

// useToken uses a valid token in each way.
func (s *secrecyTest) useToken(name, token string) {
	s.t.Helper()
	s.hidden[name+" token"] = []byte(token)
	s.hidden[name+" signature"] = []byte(token[strings.LastIndex(token, ".")+1:])
	s.presentToken(token)
	holder := bearer(s.t, s.config, token)
	holder.must(s.t, http.MethodPost, whoAmIPath, `{}`)
	holder.get(s.t, "/api/v1/secrets")
	holder.get(s.t, "/api/v1/namespaces/"+s.namespace+"/configmaps?watch=true")
	holder.do(s.t, http.MethodGet, "/api", nil, "Impersonate-User", "x")
}

// presentToken sends a token, as it is and changed, as bearer, as subprotocol and for review.
func (s *secrecyTest) presentToken(token string) {
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

// encodedForms returns the forms in which a value could have been written.
func encodedForms(value []byte) map[string][]byte {
	// Within longer base64 text the value has one of three alignments. Its first and last characters also encode its
	// neighbours, so they are left out.
	forms := map[string][]byte{"plain": value, "decimal": []byte(strings.Trim(fmt.Sprint(value), "[]")), "Go": []byte(strings.TrimSuffix(strings.TrimPrefix(fmt.Sprintf("%#v", value), "[]byte{"), "}"))}
	for shift := range 3 {
		text := base64.StdEncoding.EncodeToString(append(make([]byte, shift), value...))
		end := len(text) - 4
		forms[fmt.Sprintf("base64 at %d", shift)] = []byte(text[4:end])
	}
	return forms
}

// checkAbsent fails the test for each secret value in the text, and for the first part of one.
func (s *secrecyTest) checkAbsent(where string, text []byte) {
	s.t.Helper()
	for name, value := range s.hidden {
		for form, disguised := range encodedForms(value) {
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

// checkFiles reads every file of the data directory, which includes the logs. The canary, which is not secret, must be
// found: it shows that the search works.
func (s *secrecyTest) checkFiles(h *verboseServer) {
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
		s.checkAbsent(path, text)
		if bytes.Contains(text, []byte(s.canary)) {
			found[strings.Split(strings.TrimPrefix(path, h.dir.Path()+"/"), "/")[0]] = true
		}
		return nil
	})
	must(s.t, err)
	if !found["etcd"] || !found["audit"] {
		s.t.Errorf("the canary was found in %v; want it in etcd and in the audit log", found)
	}
	log, err := os.ReadFile(h.program.log)
	must(s.t, err)
	if want := "/api/v1/namespaces/" + s.namespace + "/secrets"; !bytes.Contains(log, []byte(want)) {
		s.t.Errorf("the server's log at the highest level does not name %s", want)
	}
	refused := regexp.MustCompile(`level=WARN msg="Refused the credential of a request reason=\\".+\\" client=\\"127\.0\.0\.1:\d+\\" userAgent=\\".+\\" method=\\"POST\\" path=\\"\S+\\" kid=\\"[\w-]{43}\\" jti=\\"[\w-]{36}\\"`)
	if !refused.Match(log) {
		lines := regexp.MustCompile(`.*Refused the credential.*`).FindAllString(string(log), 3)
		s.t.Errorf("the server's log has no line that matches %s for a refused token; it has %q", refused, lines)
	}
	audit, err := os.ReadFile(h.dir.AuditLog())
	must(s.t, err)
	for _, want := range []string{`"level":"RequestResponse"`, `"authentication.kubernetes.io/issued-credential-id"`, `"authentication.kubernetes.io/credential-id"`} {
		if !bytes.Contains(audit, []byte(want)) {
			s.t.Errorf("the audit log lacks %s", want)
		}
	}
}
