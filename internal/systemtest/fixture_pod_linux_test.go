// Fixture: a namespace of a site, and pods in it, by client-go and by the real kubectl.

package systemtest

import (
	"bufio"
	"context"
	"io"
	"net/http"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/yaml"
)

// podNamespace is a namespace of a site for one test.
type podNamespace struct {
	*site
	namespace string
}

func (s *site) newNamespace(t testing.TB) *podNamespace {
	t.Helper()
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "test-"}}
	made, err := s.Client().CoreV1().Namespaces().Create(t.Context(), namespace, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return &podNamespace{site: s, namespace: made.Name}
}

// kubectl runs kubectl, which must succeed, and returns its standard output.
func (b *podNamespace) kubectl(t *testing.T, args ...string) string {
	t.Helper()
	stdout, stderr, code := b.try(t, args...)
	if code != 0 {
		t.Fatalf("kubectl %q: exit code %d\n%s%s", args, code, stdout, stderr)
	}
	return stdout
}

// try runs kubectl and returns its output and its exit code.
func (b *podNamespace) try(t *testing.T, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	return runCommand(t, b.command(t, args...))
}

func (b *podNamespace) command(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	return kubectl(t, b.Kubeconfig(), b.namespace, false, args...)
}

// apply runs kubectl apply with the manifests.
func (b *podNamespace) apply(t *testing.T, manifests string) {
	t.Helper()
	command := b.command(t, "apply", "-f", "-")
	command.Stdin = strings.NewReader(manifests)
	if stdout, stderr, code := runCommand(t, command); code != 0 {
		t.Fatalf("kubectl apply: %s%s", stdout, stderr)
	}
}

// create creates a pod.
func (b *podNamespace) create(t testing.TB, pod *corev1.Pod) *corev1.Pod {
	t.Helper()
	// The disk of a machine that runs tests may be nearly full.
	pod.Spec.Tolerations = append(pod.Spec.Tolerations, corev1.Toleration{Key: corev1.TaintNodeDiskPressure, Operator: corev1.TolerationOpExists})
	made, err := b.Client().CoreV1().Pods(b.namespace).Create(t.Context(), pod, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return made
}

// podOf returns a pod with this spec, in YAML. By default it is not restarted, and has one container, c, that runs the test
// tool with the arguments.
func podOf(t testing.TB, name, spec string, args ...string) *corev1.Pod {
	t.Helper()
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name}}
	pod.Spec.RestartPolicy = corev1.RestartPolicyNever
	if err := yaml.UnmarshalStrict([]byte(spec), &pod.Spec); err != nil {
		t.Fatalf("pod %s: %v", name, err)
	}
	if len(pod.Spec.Containers) == 0 {
		pod.Spec.Containers = []corev1.Container{{Name: "c", Image: "lanyard.test/tool:1", Args: args}}
	}
	return pod
}

// await returns the pod as soon as reached returns true for it. state describes that for an error.
func (b *podNamespace) await(t testing.TB, name, state string, reached func(*corev1.Pod) bool) *corev1.Pod {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), waitLimit)
	defer cancel()
	last := &corev1.Pod{}
	for ctx.Err() == nil {
		watching, err := b.Client().CoreV1().Pods(b.namespace).Watch(ctx, metav1.ListOptions{FieldSelector: "metadata.name=" + name})
		if err != nil {
			t.Fatal(err)
		}
		for event := range watching.ResultChan() {
			pod, ok := event.Object.(*corev1.Pod)
			if !ok {
				break
			}
			if last = pod; event.Type != watch.Deleted && reached(pod) {
				watching.Stop()
				return pod
			}
		}
		watching.Stop()
	}
	status, _ := yaml.Marshal(last.Status)
	t.Fatalf("pod %s: not %s within %v:\n%s\n%s", name, state, waitLimit, status, b.agentLog())
	return nil
}

func (b *podNamespace) awaitRunning(t testing.TB, name string) *corev1.Pod {
	t.Helper()
	return b.await(t, name, "running", isReady)
}

func isReady(pod *corev1.Pod) bool {
	for _, c := range pod.Status.Conditions {
		if c.Type == corev1.PodReady {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
}

// awaitEnd returns the pod once it has succeeded or failed.
func (b *podNamespace) awaitEnd(t testing.TB, name string) *corev1.Pod {
	t.Helper()
	return b.await(t, name, "ended", func(pod *corev1.Pod) bool {
		return pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed
	})
}

// run creates a pod, waits until it has succeeded, and returns its log.
func (b *podNamespace) run(t *testing.T, pod *corev1.Pod) string {
	t.Helper()
	b.create(t, pod)
	if ended := b.awaitEnd(t, pod.Name); ended.Status.Phase != corev1.PodSucceeded {
		status, _ := yaml.Marshal(ended.Status)
		t.Fatalf("pod %s failed:\n%s\n%s", pod.Name, status, b.kubectl(t, "logs", pod.Name, "--all-containers"))
	}
	return b.kubectl(t, "logs", pod.Name)
}

// awaitEvent returns the first event of an object that has this reason, or any if reason is "", and a message that contains
// the text.
func (b *podNamespace) awaitEvent(t testing.TB, object, reason, text string) *corev1.Event {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), waitLimit)
	defer cancel()
	selector := "involvedObject.name=" + object
	watching, err := b.Client().CoreV1().Events(b.namespace).Watch(ctx, metav1.ListOptions{FieldSelector: selector})
	if err != nil {
		t.Fatal(err)
	}
	defer watching.Stop()
	var seen []string
	for event := range watching.ResultChan() {
		e, ok := event.Object.(*corev1.Event)
		if ok && (reason == "" || e.Reason == reason) && strings.Contains(e.Message, text) {
			return e
		}
		if ok {
			seen = append(seen, e.Reason+": "+e.Message)
		}
	}
	t.Fatalf("no event %s of %s that contains %q among %q", reason, object, text, seen)
	return nil
}

// stream is the output of a running kubectl, line by line.
type stream struct {
	t       *testing.T
	process *exec.Cmd
	lines   chan string
	timeout <-chan time.Time
}

// stream starts kubectl. Output after waitLimit is treated as missing.
func (b *podNamespace) stream(t *testing.T, args ...string) *stream {
	t.Helper()
	s := &stream{t: t, process: b.command(t, args...), lines: make(chan string, 1024), timeout: time.After(waitLimit)}
	out, err := s.process.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.process.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		for lines := bufio.NewScanner(out); lines.Scan(); {
			s.lines <- lines.Text()
		}
		_ = s.process.Wait()
		close(s.lines)
	}()
	return s
}

func (s *stream) next() (line string, ok bool) {
	select {
	case line, ok = <-s.lines:
	case <-s.timeout:
		s.t.Errorf("%q has neither written the expected line nor ended within %v", s.process.Args, waitLimit)
	}
	return line, ok
}

// await skips lines until the wanted one.
func (s *stream) await(want string) {
	s.t.Helper()
	var seen []string
	for {
		line, ok := s.next()
		if !ok {
			s.t.Fatalf("no line %q among %q", want, seen)
		}
		if line == want {
			return
		}
		seen = append(seen, line)
	}
}

// end returns when kubectl has ended by itself.
func (s *stream) end() {
	for ok := true; ok; {
		_, ok = s.next()
	}
}

// stop kills kubectl.
func (s *stream) stop() {
	_ = s.process.Process.Kill()
	for range s.lines {
		continue
	}
}

// exec runs the test tool in a container of a pod and returns its output.
func (b *podNamespace) exec(t *testing.T, pod string, args ...string) string {
	t.Helper()
	return b.kubectl(t, append([]string{"exec", pod, "--", "/bin/tool"}, args...)...)
}

func (b *podNamespace) config(t testing.TB) *rest.Config {
	t.Helper()
	config, err := clientcmd.BuildConfigFromFlags("", b.Kubeconfig())
	if err != nil {
		t.Fatal(err)
	}
	config.QPS = -1
	return config
}

// metric reads one of the agent's metrics. It returns 0 for a metric that is not there yet.
func (b *podNamespace) metric(t *testing.T, name string) float64 {
	t.Helper()
	config := b.config(t)
	config.CAData, config.CAFile, config.Insecure = nil, "", true // clients do not trust the CA of nodes
	client, err := rest.HTTPClientFor(config)
	if err != nil {
		t.Fatal(err)
	}
	answer, err := client.Get("https://" + b.agentAddress(t) + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = answer.Body.Close() }()
	text, err := io.ReadAll(answer.Body)
	if err != nil || answer.StatusCode != http.StatusOK {
		t.Fatalf("metrics: %s, %s, %v", answer.Status, text, err)
	}
	found := regexp.MustCompile(`(?m)^` + regexp.QuoteMeta(name) + ` (\S+)$`).FindSubmatch(text)
	if found == nil {
		return 0
	}
	value, err := strconv.ParseFloat(string(found[1]), 64)
	if err != nil {
		t.Fatal(err)
	}
	return value
}
