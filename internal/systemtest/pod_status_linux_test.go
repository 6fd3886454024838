// Promise: kubectl, events and metrics show what becomes of a pod.

package systemtest

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// podCases are pods, with the columns READY, STATUS and RESTARTS that kubectl shows in the end, and an event with the
// reason.
var podCases = map[string]struct {
	spec          string
	args          []string
	columns       string
	reason, event string
}{
	"steady":    {args: []string{"sleep"}, columns: `1/1 Running 0`, reason: "Started", event: "Container started"},
	"completed": {args: []string{"log", "well"}, columns: `0/1 Completed 0`},
	"failed":    {args: []string{"exit", "3"}, columns: `0/1 Error 0`},
	"crashing":  {"restartPolicy: Always", []string{"log", "ouch", ";", "exit", "1"}, `0/1 CrashLoopBackOff \d+ .*`, "BackOff", "Back-off restarting failed container c"},
	"greedy": {"containers: [{name: c, image: lanyard.test/tool:1, args: [await, /tmp/go, ;, allocate, '134217728'], resources: {limits: {memory: 64Mi}}}]",
		nil, `0/1 OOMKilled 0`, "", ""},
	"absent":   {"containers: [{name: c, image: '127.0.0.1:1/absent:1'}]", nil, `0/1 ImagePullBackOff 0`, "Failed", "127.0.0.1:1/absent:1"},
	"never":    {"containers: [{name: c, image: lanyard.test/absent:1, imagePullPolicy: Never}]", nil, `0/1 ErrImageNeverPull 0`, "ErrImageNeverPull", `Container image "lanyard.test/absent:1" is not present with pull policy of Never`},
	"misnamed": {"containers: [{name: c, image: 'Not:An:Image'}]", nil, `0/1 InvalidImageName 0`, "InspectFailed", `couldn't parse image name "Not:An:Image"`},
	"unconfigured": {"containers: [{name: c, image: lanyard.test/tool:1, envFrom: [{configMapRef: {name: absent}}]}]",
		nil, `0/1 CreateContainerConfigError 0`, "Failed", `configmap "absent" not found`},
	"rooted": {"containers: [{name: c, image: lanyard.test/tool:1, securityContext: {runAsNonRoot: true}}]",
		nil, `0/1 CreateContainerConfigError 0`, "Failed", "container has runAsNonRoot and image will run as root"},
	"waiting":   {"initContainers: [{name: i, image: lanyard.test/tool:1, args: [sleep]}]", nil, `0/1 Init:0/1 0`, "", ""},
	"stuck":     {"initContainers: [{name: i, image: lanyard.test/tool:1, args: [exit, '4']}]", nil, `0/1 Init:Error 0`, "", ""},
	"unmounted": {"volumes: [{name: v, secret: {secretName: absent}}]", nil, `0/1 ContainerCreating 0`, "FailedMount", `"absent" not found`},
	"probed":    {"containers: [{name: c, image: lanyard.test/tool:1, livenessProbe: {exec: {command: [x]}}}]", nil, `0/1 \S+ 0`, "", "spec.containers[0].livenessProbe"},
	"hooked":    {"containers: [{name: c, image: lanyard.test/tool:1, lifecycle: {preStop: {exec: {command: [x]}}}}]", nil, `0/1 \S+ 0`, "", "spec.containers[0].lifecycle"},
	"claiming":  {"volumes: [{name: v, persistentVolumeClaim: {claimName: x}}]", nil, `0/1 \S+ 0`, "", "spec.volumes[0].persistentVolumeClaim"},
}

// TestPodStatuses checks kubectl's columns and the events of pods.
func TestPodStatuses(t *testing.T) {
	t.Parallel()
	b := commonSite(t).newNamespace(t)
	names := slices.Sorted(maps.Keys(podCases))
	for _, name := range names {
		b.create(t, podOf(t, name, podCases[name].spec, podCases[name].args...))
	}
	// The memory is allocated after the start of the container, because the runtime detects an OOM kill only then. The kill may
	// also end the process that writes the file.
	b.awaitRunning(t, "greedy")
	b.try(t, "exec", "greedy", "--", "/bin/tool", "write", "/tmp/go", "")
	b.awaitColumns(t, func(name, columns string) bool {
		return regexp.MustCompile(`^` + podCases[name].columns + `$`).MatchString(columns)
	}, names...)
	for _, name := range names {
		if fate := podCases[name]; fate.event != "" {
			e := b.awaitEvent(t, name, fate.reason, fate.event)
			if fate.reason == "" && e.Type != corev1.EventTypeWarning {
				t.Errorf("%s: event %+v is no warning", name, e)
			}
		}
	}
	b.kubectl(t, "delete", "pods", "--all", "--now")
}

// awaitColumns reads kubectl get pods --watch until wanted returns true for the columns READY, STATUS and RESTARTS of each pod.
func (b *podNamespace) awaitColumns(t *testing.T, wanted func(name, columns string) bool, names ...string) {
	t.Helper()
	f := b.stream(t, "get", "pods", "--watch", "--no-headers")
	defer f.stop()
	last, left := map[string]string{}, map[string]bool{}
	for _, name := range names {
		left[name] = true
	}
	for len(left) > 0 {
		line, ok := f.next()
		if !ok {
			t.Fatalf("unexpected columns of %q, among %q\n%s", slices.Sorted(maps.Keys(left)), last, b.agentLog())
		}
		fields := strings.Fields(line)
		columns := strings.Join(fields[1:len(fields)-1], " ") // without the last, AGE
		if last[fields[0]] = columns; left[fields[0]] && wanted(fields[0], columns) {
			delete(left, fields[0])
		}
	}
}

// TestUnsupportedFieldsAreRefused checks that a pod with a field that the agent does not support is not run.
func TestUnsupportedFieldsAreRefused(t *testing.T) {
	t.Parallel()
	b := commonSite(t).newNamespace(t)
	b.create(t, podOf(t, "probed", "containers: [{name: c, image: lanyard.test/tool:1, args: [sleep], readinessProbe: {tcpSocket: {port: 1}}}]"))
	ended := b.awaitEnd(t, "probed")
	if ended.Status.Phase != corev1.PodFailed || !strings.Contains(ended.Status.Message, "spec.containers[0].readinessProbe") {
		t.Errorf("status %+v", ended.Status)
	}
	if got := b.kubectl(t, "describe", "pod", "probed"); !strings.Contains(got, "spec.containers[0].readinessProbe") {
		t.Errorf("described as\n%s", got)
	}
	b.kubectl(t, "delete", "pod", "probed")
	if _, err := b.Client().CoreV1().Pods(b.namespace).Get(t.Context(), "probed", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		t.Errorf("deleted: %v", err)
	}
}

// TestAccountsScrapeNodes reads a node's metrics as Prometheus does: with an account's token, and with a CA that the account
// can read.
func TestAccountsScrapeNodes(t *testing.T) {
	t.Parallel()
	b := commonSite(t).newNamespace(t)
	for _, name := range []string{"prometheus", "visitor"} {
		createAccount(t, b.Client(), b.namespace, name)
	}
	may, mayNot := accountToken(t, b.Client(), b.namespace, "prometheus"), accountToken(t, b.Client(), b.namespace, "visitor")
	bindClusterRole(t, b.Client(), "scrape-"+b.namespace, accountSubject(b.namespace, "prometheus"), rbacRule("", "nodes/metrics", "get"))

	scrape := b.scraper(t, may)
	code, text := scrape(t, "/metrics", may)
	if code != http.StatusOK || !strings.Contains(text, `lanyard_runtime_operations_total{operation="list",result="success"}`) || !strings.Contains(text, `lanyard_pods{phase="Running"}`) {
		t.Errorf("with the right: %d\n%.500s", code, text)
	}
	for name, test := range map[string]struct {
		path, token string
		code        int
	}{
		"without the right":    {"/metrics", mayNot, http.StatusForbidden},
		"with another right":   {"/containerLogs/a/b/c", may, http.StatusForbidden},
		"a garbage token":      {"/metrics", "garbage", http.StatusUnauthorized},
		"a token cut short":    {"/metrics", may[:len(may)-3], http.StatusUnauthorized},
		"no token":             {"/metrics", "", http.StatusUnauthorized},
		"for another audience": {"/metrics", accountToken(t, b.Client(), b.namespace, "prometheus", "vault"), http.StatusUnauthorized},
		"an unknown path":      {"/pods", may, http.StatusNotFound},
	} {
		if code, text := scrape(t, test.path, test.token); code != test.code || strings.Contains(text, "lanyard_") {
			t.Errorf("%s: %d, want %d\n%.200s", name, code, test.code, text)
		}
	}
	// Decisions are not cached.
	if err := b.Client().CoreV1().ServiceAccounts(b.namespace).Delete(t.Context(), "prometheus", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	if code, _ := scrape(t, "/metrics", may); code != http.StatusUnauthorized {
		t.Errorf("a deleted account: %d", code)
	}
}

// scraper returns a function that requests a page of the node. The CA of nodes verifies the node; it is read with the token.
func (b *podNamespace) scraper(t *testing.T, token string) func(t *testing.T, path, token string) (int, string) {
	t.Helper()
	config := bearing(b.config(t), token)
	published, err := clientFor(t, config).CoreV1().ConfigMaps("kube-public").Get(t.Context(), "kubelet-serving-ca", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM([]byte(published.Data["ca.crt"])) {
		t.Fatal("the ConfigMap holds no certificate")
	}
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}}
	t.Cleanup(client.CloseIdleConnections)
	// This CA does not sign the certificate of the authority.
	if _, err := client.Get(config.Host + "/version"); !errors.As(err, new(*tls.CertificateVerificationError)) {
		t.Errorf("the CA of nodes verifies the authority: %v", err)
	}
	return func(t *testing.T, path, token string) (int, string) {
		t.Helper()
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://"+b.agentAddress(t)+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		if token != "" {
			request.Header.Set("Authorization", "Bearer "+token)
		}
		answer, err := client.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = answer.Body.Close() }()
		text, err := io.ReadAll(answer.Body)
		if err != nil {
			t.Fatal(err)
		}
		return answer.StatusCode, string(text)
	}
}
