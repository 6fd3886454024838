package systemtest

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"

	"lanyard.dev/internal/node/server"
	"lanyard.dev/internal/pki"
	"lanyard.dev/lanyardtest"
)

// bareNode is a node whose agent is nothing but its real server, on a fake runtime.
type bareNode struct {
	t       testing.TB
	name    string
	admin   kubernetes.Interface
	runtime *fakeRuntime
	ca      *pki.Authority // of clients
	nodes   *pki.Authority // of what nodes serve with
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
		t.Skip("the containers are this machine's shell")
	}
	ca, nodes := authorityIn(t, dataDir, "ca"), authorityIn(t, dataDir, "nodes-ca")
	n := &bareNode{t: t, name: name, admin: admin, runtime: newFakeRuntime(t), ca: ca, nodes: nodes, cas: x509.NewCertPool(), reviews: reviews}
	n.cas.AddCert(ca.Certificate())
	n.serving.Store(servingOf(t, nodes, "system:node:"+name, "system:nodes"))
	n.start()
	t.Cleanup(n.stop)
	return n
}

func authorityIn(t testing.TB, dir, name string) *pki.Authority {
	t.Helper()
	ca, err := pki.EnsureAuthority(filepath.Join(dir, name+".crt"), filepath.Join(dir, name+".key"), "", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return ca
}

// servingOf returns a certificate of the CA for loopback.
func servingOf(t testing.TB, ca *pki.Authority, name string, groups ...string) *tls.Certificate {
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

// start serves the node at a new port and says so in its status.
func (n *bareNode) start() {
	n.t.Helper()
	node, err := server.New(server.Config{
		NodeName: n.name, Runtime: n.runtime, Reviews: n.reviews, Tokens: n.admin.AuthenticationV1().TokenReviews(), Pods: server.View(n.find),
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
	ended := go1(func() error { return node.Serve(ctx, listener) })
	n.stopped = sync.OnceValue(func() error {
		stop()
		return <-ended
	})
	n.report(n.address.Port)
}

func (n *bareNode) stop() {
	if err := n.stopped(); err != nil {
		n.t.Errorf("the node's server ended with %v", err)
	}
}

// report says where the node is reached.
func (n *bareNode) report(port int) {
	n.t.Helper()
	status := fmt.Sprintf(`{"status":{"addresses":[{"type":"Hostname","address":"nowhere.invalid"},{"type":"InternalIP","address":"127.0.0.1"}],`+
		`"daemonEndpoints":{"kubeletEndpoint":{"Port":%d}}}}`, port)
	if _, err := n.admin.CoreV1().Nodes().PatchStatus(n.t.Context(), n.name, []byte(status)); err != nil {
		n.t.Fatal(err)
	}
}

// runs has the node know the pod as one that runs.
func (n *bareNode) runs(pod *corev1.Pod) {
	known := pod.DeepCopy()
	known.Status.ContainerStatuses = []corev1.ContainerStatus{{
		Name: pod.Spec.Containers[0].Name, ContainerID: "fake://id-c", State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}},
	}}
	n.pods.Store(known)
}

func (n *bareNode) find(_, name string) (*corev1.Pod, string, bool) {
	pod := n.pods.Load()
	if pod == nil || pod.Name != name {
		return nil, "", false
	}
	return pod, "sandbox", true
}

// stage is an authority with such a node that asks it with its own rights, and a pod that runs there.
type stage struct {
	*bareNode
	authority *lanyardtest.Authority
	namespace string
	pod       *corev1.Pod
}

func newStage(t *testing.T) *stage {
	t.Helper()
	a := lanyardtest.Start(t)
	s := &stage{authority: a, namespace: a.Namespace(t)}
	node := newMachine(t, a, s.namespace, "one")
	s.bareNode = serveNode(t, "one", a.DataDir(), a.Client(), node.AuthorizationV1().SubjectAccessReviews())
	status := `{"status":{"phase":"Running","startTime":"2026-11-02T03:04:05Z"}}` // without it kubectl does not try
	var err error
	s.pod, err = node.CoreV1().Pods(s.namespace).Patch(t.Context(), node.pod.Name, types.StrategicMergePatchType, []byte(status), metav1.PatchOptions{}, "status")
	if err != nil {
		t.Fatal(err)
	}
	s.runs(s.pod)
	return s
}
