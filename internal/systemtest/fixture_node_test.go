// Fixture: nodes and pods without containers. A machine has a node's credentials; a bareNode also serves log, exec, attach and
// port-forward.

package systemtest

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"lanyard.dev/internal/node/server"
	"lanyard.dev/internal/pki"
	"lanyard.dev/lanyardtest"
)

// nodeClient returns a client with the credentials of a node that has joined: a client certificate of the authority's CA.
func nodeClient(t testing.TB, a *lanyardtest.Authority, name string) *kubernetes.Clientset {
	t.Helper()
	client := clientFor(t, nodeConfig(t, a.DataDir(), a.Config(), name))
	t.Cleanup(client.CoreV1().RESTClient().(*rest.RESTClient).Client.CloseIdleConnections)
	return client
}

// nodeConfig returns the configuration with a node's certificate, signed by the CA in the data directory, as its only
// credential.
func nodeConfig(t testing.TB, dataDir string, config *rest.Config, name string) *rest.Config {
	t.Helper()
	now := time.Now()
	ca, err := pki.EnsureAuthority(filepath.Join(dataDir, "ca.crt"), filepath.Join(dataDir, "ca.key"), "", now)
	if err != nil {
		t.Fatal(err)
	}
	pair, err := ca.NewClient("system:node:"+name, []string{"system:nodes"}, now)
	if err != nil {
		t.Fatal(err)
	}
	return withCertificate(config, pair.CertPEM, pair.KeyPEM)
}

// registeredNode is a node that has registered, with one pod bound to it.
type registeredNode struct {
	*kubernetes.Clientset
	name string
	pod  *corev1.Pod
}

// newRegisteredNode registers a node and binds a pod to it. The account, secret and config map of the pod have the pod's
// name. The pod asks for a token for the audience vault besides the usual one.
func newRegisteredNode(t *testing.T, a *lanyardtest.Authority, namespace, name string) *registeredNode {
	t.Helper()
	m := &registeredNode{Clientset: nodeClient(t, a, name), name: name}
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{corev1.LabelHostname: name}}}
	if _, err := m.CoreV1().Nodes().Create(t.Context(), node, metav1.CreateOptions{}); err != nil {
		t.Fatalf("register %s: %v", name, err)
	}
	core := a.Client().CoreV1()
	a.CreateServiceAccount(t, namespace, "app-"+name)
	meta := metav1.ObjectMeta{Name: "app-" + name}
	if _, err := core.Secrets(namespace).Create(t.Context(), &corev1.Secret{ObjectMeta: meta}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := core.ConfigMaps(namespace).Create(t.Context(), &corev1.ConfigMap{ObjectMeta: meta}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	m.pod = createPod(t, a, namespace, appPod(name))
	bind(t, a, m.pod, name)
	return m
}

func appPod(node string) *corev1.Pod {
	name := "app-" + node
	local := corev1.LocalObjectReference{Name: name}
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name}}
	pod.Spec.ServiceAccountName = name
	pod.Spec.Containers = []corev1.Container{{Name: "c", Image: "x",
		EnvFrom: []corev1.EnvFromSource{{ConfigMapRef: &corev1.ConfigMapEnvSource{LocalObjectReference: local}}}}}
	pod.Spec.Volumes = []corev1.Volume{{Name: "v", VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{
		Sources: []corev1.VolumeProjection{
			{Secret: &corev1.SecretProjection{LocalObjectReference: local}},
			{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{Audience: "vault", Path: "vault"}},
		},
	}}}}
	return pod
}

func createPod(t *testing.T, a *lanyardtest.Authority, namespace string, pod *corev1.Pod) *corev1.Pod {
	t.Helper()
	made, err := a.Client().CoreV1().Pods(namespace).Create(t.Context(), pod, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return made
}

func bind(t *testing.T, a *lanyardtest.Authority, pod *corev1.Pod, node string) {
	t.Helper()
	binding := &corev1.Binding{ObjectMeta: metav1.ObjectMeta{Name: pod.Name}, Target: corev1.ObjectReference{Kind: "Node", Name: node}}
	if err := a.Client().CoreV1().Pods(pod.Namespace).Bind(t.Context(), binding, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
}

// token requests a token bound to a pod with the node's credentials, as an agent does.
func (m *registeredNode) token(ctx context.Context, account string, pod *corev1.Pod, audiences ...string) (string, error) {
	return podToken(ctx, m, account, pod, audiences...)
}

// wantForbidden checks that an error is Forbidden and contains the message.
func wantForbidden(t *testing.T, what string, err error, message string) {
	t.Helper()
	if !apierrors.IsForbidden(err) || !strings.Contains(err.Error(), message) {
		t.Errorf("%s: got %v, want forbidden: %s", what, err, message)
	}
}

// bearer has a token issued for the node's pod, and returns a function that signs in with it.
func (m *registeredNode) bearer(t *testing.T, a *lanyardtest.Authority) func() error {
	t.Helper()
	token, err := m.token(t.Context(), m.pod.Spec.ServiceAccountName, m.pod)
	if err != nil {
		t.Fatal(err)
	}
	config := bearing(a.Config(), token)
	return func() error {
		_, err := identify(t, config)
		return err
	}
}

func wantUnauthorized(t *testing.T, what string, err error) {
	t.Helper()
	if !apierrors.IsUnauthorized(err) {
		t.Errorf("%s: %v, want unauthorized", what, err)
	}
}

func podOn(node string) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "p"},
		Spec:       corev1.PodSpec{NodeName: node, ServiceAccountName: "default", Containers: []corev1.Container{{Name: "c", Image: "x"}}},
	}
}

func simplePod(name string) *corev1.Pod {
	return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "x"}}}}
}

// readyNode creates a node with the condition Ready, as its agent would.
func readyNode(t *testing.T, a *lanyardtest.Authority, name string) {
	t.Helper()
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{corev1.LabelHostname: name}}}
	node.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue, Reason: "AgentReady"}}
	if _, err := a.Client().CoreV1().Nodes().Create(t.Context(), node, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
}

// bareNode is a node of which only the agent's server runs, on a fake runtime.
type bareNode struct {
	t       testing.TB
	name    string
	admin   kubernetes.Interface
	runtime *fakeRuntime
	ca      *pki.Authority // signs the certificates of clients
	nodes   *pki.Authority // signs the serving certificates of nodes
	cas     *x509.CertPool
	reviews server.Reviews
	serving atomic.Pointer[tls.Certificate]
	pods    atomic.Pointer[corev1.Pod]

	address *net.TCPAddr
	stopped func() error
}

// newBareNode registers the node bare and serves it until the end of the test, with the CAs of a data directory.
func newBareNode(t testing.TB, dataDir string, admin kubernetes.Interface) *bareNode {
	t.Helper()
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "bare"}}
	if _, err := admin.CoreV1().Nodes().Create(t.Context(), node, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	return serveNode(t, "bare", dataDir, admin, admin.AuthorizationV1().SubjectAccessReviews())
}

func serveNode(t testing.TB, name, dataDir string, admin kubernetes.Interface, reviews server.Reviews) *bareNode {
	t.Helper()
	if runtime.GOOS == "windows" {
		t.Skip("the fake runtime runs shell commands")
	}
	ca, nodes := loadCA(t, dataDir, "ca"), loadCA(t, dataDir, "nodes-ca")
	n := &bareNode{t: t, name: name, admin: admin, runtime: newFakeRuntime(t), ca: ca, nodes: nodes, cas: x509.NewCertPool(), reviews: reviews}
	n.cas.AddCert(ca.Certificate())
	n.serving.Store(servingCertificate(t, nodes, "system:node:"+name, "system:nodes"))
	n.start()
	t.Cleanup(n.stop)
	return n
}

func loadCA(t testing.TB, dir, name string) *pki.Authority {
	t.Helper()
	ca, err := pki.EnsureAuthority(filepath.Join(dir, name+".crt"), filepath.Join(dir, name+".key"), "", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return ca
}

// servingCertificate returns a certificate of the CA for 127.0.0.1.
func servingCertificate(t testing.TB, ca *pki.Authority, name string, groups ...string) *tls.Certificate {
	t.Helper()
	dir := t.TempDir()
	names := pki.Names{DNS: []string{"one"}, IPs: []net.IP{net.IPv4(127, 0, 0, 1)}}
	pair, err := ca.EnsureNodeServing(filepath.Join(dir, "crt"), filepath.Join(dir, "key"), name, groups, names, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return parsePair(t, pair)
}

func parsePair(t testing.TB, pair *pki.Pair) *tls.Certificate {
	t.Helper()
	certificate, err := tls.X509KeyPair(pair.CertPEM, pair.KeyPEM)
	if err != nil {
		t.Fatal(err)
	}
	return &certificate
}

// start serves the node at a new port and writes that port to its status.
func (n *bareNode) start() {
	n.t.Helper()
	node, err := server.New(server.Config{
		NodeName: n.name, Runtime: n.runtime, Reviews: n.reviews, Tokens: n.admin.AuthenticationV1().TokenReviews(), Pods: server.View(n.findPod),
		Certificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return n.serving.Load(), nil },
		ClientCAs:   func() *x509.CertPool { return n.cas },
	})
	if err != nil {
		n.t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		n.t.Fatal(err)
	}
	n.address = listener.Addr().(*net.TCPAddr)
	ctx, stop := context.WithCancel(context.Background())
	ended := async(func() error { return node.Serve(ctx, listener) })
	n.stopped = sync.OnceValue(func() error {
		stop()
		return <-ended
	})
	n.reportPort(n.address.Port)
}

func (n *bareNode) stop() {
	if err := n.stopped(); err != nil {
		n.t.Errorf("the node's server ended with %v", err)
	}
}

// reportPort writes the node's address and port to its status.
func (n *bareNode) reportPort(port int) {
	n.t.Helper()
	status := fmt.Sprintf(`{"status":{"addresses":[{"type":"Hostname","address":"nowhere.invalid"},{"type":"InternalIP","address":"127.0.0.1"}],`+
		`"daemonEndpoints":{"kubeletEndpoint":{"Port":%d}}}}`, port)
	if _, err := n.admin.CoreV1().Nodes().PatchStatus(n.t.Context(), n.name, []byte(status)); err != nil {
		n.t.Fatal(err)
	}
}

// setRunningPod makes the pod the only one that runs on the node.
func (n *bareNode) setRunningPod(pod *corev1.Pod) {
	known := pod.DeepCopy()
	known.Status.ContainerStatuses = []corev1.ContainerStatus{{
		Name: pod.Spec.Containers[0].Name, ContainerID: "fake://id-c", State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}},
	}}
	n.pods.Store(known)
}

func (n *bareNode) findPod(_, name string) (*corev1.Pod, string, bool) {
	pod := n.pods.Load()
	if pod == nil || pod.Name != name {
		return nil, "", false
	}
	return pod, "sandbox", true
}

// sessionFixture is an authority with a bareNode, which asks the authority with the node's own rights, and a pod that runs
// there.
type sessionFixture struct {
	*bareNode
	authority *lanyardtest.Authority
	namespace string
	pod       *corev1.Pod
}

func newSessionFixture(t *testing.T) *sessionFixture {
	t.Helper()
	return newSessionFixtureWith(t, lanyardtest.Options{})
}

func newSessionFixtureWith(t *testing.T, o lanyardtest.Options) *sessionFixture {
	t.Helper()
	a := lanyardtest.StartWith(t, o)
	s := &sessionFixture{authority: a, namespace: a.Namespace(t)}
	node := newRegisteredNode(t, a, s.namespace, "one")
	s.bareNode = serveNode(t, "one", a.DataDir(), a.Client(), node.AuthorizationV1().SubjectAccessReviews())
	status := `{"status":{"phase":"Running","startTime":"2026-11-02T03:04:05Z"}}` // otherwise kubectl refuses the session
	var err error
	s.pod, err = node.CoreV1().Pods(s.namespace).Patch(t.Context(), node.pod.Name, types.StrategicMergePatchType, []byte(status), metav1.PatchOptions{}, "status")
	if err != nil {
		t.Fatal(err)
	}
	s.setRunningPod(s.pod)
	return s
}
