// Fixture: an authority with one node, whose agent runs pods on a real containerd.

package systemtest

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/moby/sys/mountinfo"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/utils/ptr"

	"lanyard.dev/internal/node/nodetest"
	"lanyard.dev/lanyardtest"
)

// images returns the images that the containerd of these tests has besides the image of the test tool.
func images() []nodetest.Image {
	return []nodetest.Image{{Name: "docker.io/library/my-dashboard:latest", Main: "lanyard.dev/examples/dashboard"}}
}

// sharedSites are shared by tests that do not disturb containerd, agent and authority. Each test has its own namespace.
var sharedSites struct {
	runtime             sync.Once
	containerd          *nodetest.Containerd
	common, shortTokens sharedSite
}

type sharedSite struct {
	once sync.Once
	site *site
}

// containerd returns the shared containerd, or skips the test if this machine cannot run one.
func containerd(t testing.TB) *nodetest.Containerd {
	t.Helper()
	nodetest.Require(t)
	sharedSites.runtime.Do(func() { sharedSites.containerd = nodetest.Start(shared, images()...) })
	if sharedSites.containerd == nil {
		t.Fatal("the shared containerd did not start: see the first test that used it")
	}
	return sharedSites.containerd
}

func (s *sharedSite) get(t testing.TB, o lanyardtest.Options) *site {
	t.Helper()
	c := containerd(t)
	s.once.Do(func() { s.site = newSite(shared, c, lanyardtest.StartWith(shared, o)) })
	if s.site == nil {
		t.Fatal("the shared site did not start: see the first test that used it")
	}
	return s.site
}

// commonSite returns a shared site whose tokens live for an hour.
func commonSite(t testing.TB) *site { return sharedSites.common.get(t, lanyardtest.Options{}) }

// shortTokenSite returns a shared site whose tokens live for shortTokenLife, whatever is requested.
func shortTokenSite(t testing.TB) *site {
	return sharedSites.shortTokens.get(t, lanyardtest.Options{MinTokenExpiration: shortTokenLife, MaxTokenExpiration: shortTokenLife})
}

// siteAuthority is an authority in this process or another one.
type siteAuthority interface {
	Kubeconfig() string
	Client() kubernetes.Interface
}

// site is an authority with one node, whose agent is a process of its own that joined with a bootstrap token.
type site struct {
	siteAuthority
	containerd *nodetest.Containerd
	node       string
	root, log  string // the agent's directory and its log file
	args       []string
	agent      *program
	ended      sync.Once
}

// newSite adds a node to the authority and returns when the node is ready. At the end of t, nothing of its pods may be left.
func newSite(t testing.TB, c *nodetest.Containerd, authority siteAuthority, flags ...string) *site {
	t.Helper()
	dir, err := os.MkdirTemp(c.Dir(), "agent-")
	if err != nil {
		t.Fatal(err)
	}
	s := &site{siteAuthority: authority, containerd: c, node: "here", root: filepath.Join(dir, "root"), log: filepath.Join(dir, "log")}
	join := filepath.Join(dir, "bootstrap.kubeconfig")
	token := lanyard(t, "node", "token", "create", "--print-join", "--kubeconfig", authority.Kubeconfig())
	if err := os.WriteFile(join, []byte(token), 0o600); err != nil {
		t.Fatal(err)
	}
	s.args = append([]string{
		"agent", "--bootstrap-kubeconfig", join, "--node-name", s.node, "--node-ip", "127.0.0.2", "--port", "0",
		"--root-dir", s.root, "--container-runtime-endpoint", c.Endpoint(),
	}, flags...)
	s.startAgent(t)
	t.Cleanup(func() { s.end(t) })
	s.awaitReady(t)
	s.awaitServing(t)
	return s
}

// awaitServing returns when the agent has a serving certificate, and so serves logs and exec.
func (s *site) awaitServing(t testing.TB) {
	t.Helper()
	address := s.agentAddress(t)
	eventually(t, "the agent serves", func(ctx context.Context) bool {
		connection, err := (&tls.Dialer{Config: &tls.Config{InsecureSkipVerify: true}}).DialContext(ctx, "tcp", address)
		if err != nil {
			return false
		}
		return connection.Close() == nil
	})
}

// agentAddress returns the address and port in the node's status.
func (s *site) agentAddress(t testing.TB) (address string) {
	t.Helper()
	node, err := s.Client().CoreV1().Nodes().Get(t.Context(), s.node, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("127.0.0.2:%d", node.Status.DaemonEndpoints.KubeletEndpoint.Port)
}

func (s *site) startAgent(t testing.TB) {
	t.Helper()
	s.agent = startProgram(t, s.log, s.args...)
}

func (s *site) awaitReady(t testing.TB) {
	t.Helper()
	eventually(t, "node is ready", func(ctx context.Context) bool {
		select {
		case err := <-s.agent.ended:
			t.Fatalf("the agent ended: %v\n%s", err, s.agentLog())
		default:
		}
		node, err := s.Client().CoreV1().Nodes().Get(ctx, s.node, metav1.GetOptions{})
		if err != nil {
			return false
		}
		for _, c := range node.Status.Conditions {
			if c.Type == corev1.NodeReady && c.Status == corev1.ConditionTrue {
				return true
			}
		}
		return false
	})
}

func (s *site) agentLog() string {
	text, _ := os.ReadFile(s.log)
	return string(text[max(0, len(text)-4096):])
}

// end calls finish once.
func (s *site) end(t testing.TB) {
	t.Helper()
	s.ended.Do(func() { s.finish(t) })
}

// finish deletes all pods, checks that nothing of them is left, and terminates the agent.
func (s *site) finish(t testing.TB) {
	t.Helper()
	pods := s.Client().CoreV1().Pods(metav1.NamespaceAll)
	all, err := pods.List(context.Background(), metav1.ListOptions{})
	if err != nil {
		t.Errorf("list pods: %v", err)
		return
	}
	for _, pod := range all.Items {
		options := metav1.DeleteOptions{GracePeriodSeconds: ptr.To[int64](1)}
		if err := s.Client().CoreV1().Pods(pod.Namespace).Delete(context.Background(), pod.Name, options); err != nil && !apierrors.IsNotFound(err) {
			t.Errorf("delete pod: %v", err)
		}
	}
	var left []string
	defer func() {
		if len(left) > 0 {
			t.Errorf("left of the pods: %q\n%s", left, s.agentLog())
		}
	}()
	eventually(t, "nothing is left of the pods", func(context.Context) bool {
		left = s.leftovers(t)
		return len(left) == 0
	})
	if _, err := s.agent.end(t, syscall.SIGTERM); err != nil {
		t.Errorf("the agent ended with %v\n%s", err, s.agentLog())
	}
	if strings.Contains(s.agentLog(), "panic") {
		t.Errorf("the agent panicked:\n%s", s.agentLog())
	}
}

// leftovers lists what is left of pods: objects, directories, mounts, and the containers of this agent.
func (s *site) leftovers(t testing.TB) []string {
	t.Helper()
	var found []string
	all, err := s.Client().CoreV1().Pods(metav1.NamespaceAll).List(context.Background(), metav1.ListOptions{})
	if err != nil {
		return []string{err.Error()}
	}
	for _, pod := range all.Items {
		found = append(found, "object "+pod.Namespace+"/"+pod.Name)
	}
	for _, dir := range []string{"volumes", "pods", "logs"} {
		files, _ := filepath.Glob(filepath.Join(s.root, dir, "*"))
		found = append(found, files...)
	}
	mounts, err := mountinfo.GetMounts(mountinfo.PrefixFilter(s.root))
	if err != nil {
		return append(found, err.Error())
	}
	for _, mount := range mounts {
		found = append(found, "mount "+mount.Mountpoint)
	}
	return append(found, s.runtimeContainers(t)...)
}

// runtimeContainers lists the containers of this agent in containerd.
func (s *site) runtimeContainers(t testing.TB) []string {
	t.Helper()
	id, err := os.ReadFile(filepath.Join(s.root, "agent-id"))
	if err != nil {
		return []string{err.Error()}
	}
	out, err := exec.Command("ctr", "-a", strings.TrimPrefix(s.containerd.Endpoint(), "unix://"), "-n", "k8s.io", "containers", "ls", "-q").Output()
	if err != nil {
		return []string{"ctr: " + err.Error()}
	}
	var found []string
	for _, container := range strings.Fields(string(out)) {
		if labels := s.labels(container); labels == nil || strings.Contains(fmt.Sprint(labels), strings.TrimSpace(string(id))) {
			found = append(found, "container "+container)
		}
	}
	return found
}

// labels returns the labels of a container, none if the container is gone, and nil if they cannot be read.
func (s *site) labels(container string) map[string]string {
	out, err := exec.Command("ctr", "-a", strings.TrimPrefix(s.containerd.Endpoint(), "unix://"), "-n", "k8s.io", "containers", "info", container).Output()
	if err != nil {
		return map[string]string{} // removed since it was listed
	}
	var info struct{ Labels map[string]string }
	if json.Unmarshal(out, &info) != nil {
		return nil
	}
	return info.Labels
}

// upAuthority is an upServer as a siteAuthority.
type upAuthority struct {
	*upServer
	kubernetes.Interface
}

func (h upAuthority) Client() kubernetes.Interface { return h.Interface }

func (h upAuthority) Kubeconfig() string { return filepath.Join(h.dir, "admin.kubeconfig") }
