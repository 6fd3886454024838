package process_test

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/utils/ptr"

	"lanyard.dev/internal/podannotation"
	"lanyard.dev/internal/process"
	"lanyard.dev/lanyardtest"
)

// nobody is the UID of a user without rights on most machines.
const nobody = 65534

// ask gives the dashboard an order and returns its answer.
func (s *supervised) ask(format string, args ...any) string {
	s.t.Helper()
	s.order(format, args...)
	return s.line()
}

// order gives the dashboard an order.
func (s *supervised) order(format string, args ...any) {
	s.t.Helper()
	if _, err := fmt.Fprintf(s.stdin, format+"\n", args...); err != nil {
		s.t.Fatal(err)
	}
}

// ready waits for the command and returns the name of its Pod.
func (s *supervised) ready() string {
	s.t.Helper()
	word, pod, _ := strings.Cut(s.line(), " ")
	if word != "ready" || pod == "" {
		s.t.Fatalf("the command prints %q; standard error:\n%s", word, s.stderr)
	}
	return pod
}

// status returns the status code with which the API server answers a request with the token.
func status(t *testing.T, authority *lanyardtest.Authority, token string) int {
	t.Helper()
	config := rest.AnonymousClientConfig(authority.Config())
	config.BearerToken = token
	client, err := rest.HTTPClientFor(config)
	if err != nil {
		t.Fatal(err)
	}
	answer, err := client.Get(config.Host + "/api/v1/nodes")
	if err != nil {
		t.Fatal(err)
	}
	_ = answer.Body.Close()
	return answer.StatusCode
}

func pods(t *testing.T, authority *lanyardtest.Authority, namespace string) []corev1.Pod {
	t.Helper()
	list, err := authority.Client().CoreV1().Pods(namespace).List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return list.Items
}

func eventually(t *testing.T, what string, done func() bool) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(patience); !done(); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within %v", what, patience)
		}
	}
}

// users returns the users as whom supervisors are tested, by name: the user of the test and, if that is root, one who needs a user
// namespace.
func users() map[string]int {
	if os.Geteuid() != 0 {
		return map[string]int{"self": -1}
	}
	return map[string]int{"root": -1, "nobody": nobody}
}

func TestRun(t *testing.T) {
	t.Parallel()
	authority := lanyardtest.StartWith(t, lanyardtest.Options{MinTokenExpiration: time.Second})
	for name, uid := range users() {
		for topic, test := range map[string]func(*testing.T, *lanyardtest.Authority, int){
			"dashboard": testDashboard, "renewal": testRenewal, "signals": testSignals, "deleted": testDeleted, "killed": testKilled,
		} {
			t.Run(topic+" by "+name, func(t *testing.T) {
				t.Parallel()
				test(t, authority, uid)
			})
		}
	}
	t.Run("another user", func(t *testing.T) { t.Parallel(); testOtherUser(t, authority) })
	t.Run("with the documented permissions", func(t *testing.T) { t.Parallel(); testDocumentedPermissions(t, authority) })
	t.Run("its account is deleted and created again", func(t *testing.T) { t.Parallel(); testAccountRecreated(t, authority) })
	t.Run("ignoring SIGHUP", func(t *testing.T) { t.Parallel(); testNohup(t, authority) })
	t.Run("killed after the grace period", func(t *testing.T) { t.Parallel(); testStubborn(t, authority) })
}

// testDashboard runs an in-cluster client without changes.
func testDashboard(t *testing.T, authority *lanyardtest.Authority, uid int) {
	o := newOrder(t, authority)
	authority.Grant(t, o.Spec.Namespace, "worker", rbacv1.PolicyRule{
		APIGroups: []string{""}, Resources: []string{"configmaps"}, ResourceNames: []string{"kube-root-ca.crt"}, Verbs: []string{"get"},
	})
	o.Act, o.Audiences = "dashboard", []process.Audience{{Name: "https://vault.example", Path: "vault/token"}}
	o.Spec.Labels = map[string]string{"app": "dashboard"}
	s := o.start(t, uid)
	name := s.ready()
	token := s.ask("read token")
	if got := s.ask("get kube-root-ca.crt"); got != "" {
		t.Errorf("a request that is allowed: %v", got)
	}
	if got := s.ask("get other"); got != string(metav1.StatusReasonForbidden) {
		t.Errorf("a request that is not allowed: %v", got)
	}
	if got := s.ask("read namespace"); got != o.Spec.Namespace {
		t.Errorf("namespace: %q", got)
	}
	if got := s.ask("read ca.crt"); got != strings.ReplaceAll(string(o.CA), "\n", "|") {
		t.Errorf("ca.crt: %q", got)
	}
	if got := s.ask("read vault/token"); strings.Count(got, ".") != 2 || got == token {
		t.Error("the audience has no token of its own")
	}
	if got := s.ask("write mine"); !strings.Contains(got, "read-only file system") {
		t.Errorf("write: %v", got)
	}
	if got := s.ask("env KUBECONFIG"); got != "false " {
		t.Errorf("KUBECONFIG: %v", got)
	}
	if got := s.ask("capabilities"); uid != -1 && got != "[]" {
		t.Errorf("capabilities left: %v", got)
	}
	if _, err := os.Stat(filepath.Join(process.WellKnown, "token")); err == nil {
		t.Error("a path outside of the namespace leads to the token")
	}
	checkPod(t, authority, o.Spec.Namespace, name)
	if code := status(t, authority, token); code != http.StatusForbidden {
		t.Errorf("the token while the command runs: status %d", code)
	}
	s.order("exit 7")
	if code := s.wait(); code != 7 {
		t.Errorf("exit code %d\n%s", code, s.stderr)
	}
	if code := status(t, authority, token); code != http.StatusUnauthorized {
		t.Errorf("the token after the end: status %d", code)
	}
	if left := pods(t, authority, o.Spec.Namespace); len(left) > 0 {
		t.Errorf("%d pods are left", len(left))
	}
	if s.stderr.Len() != 0 {
		t.Errorf("standard error: %s", s.stderr)
	}
}

func checkPod(t *testing.T, authority *lanyardtest.Authority, namespace, name string) {
	t.Helper()
	var pod *corev1.Pod
	eventually(t, "the pod runs", func() (done bool) {
		var err error
		if pod, err = authority.Client().CoreV1().Pods(namespace).Get(t.Context(), name, metav1.GetOptions{}); err != nil {
			t.Fatal(err)
		}
		return pod.Status.Phase == corev1.PodRunning
	})
	if until := podannotation.LeaseEnd(pod, time.Now()); time.Until(until) <= 0 {
		t.Errorf("the lease ended at %v", until)
	}
	if !podannotation.IsProcess(pod) || pod.Spec.NodeName != "here" || pod.Labels["app"] != "dashboard" || pod.Spec.ServiceAccountName != "worker" {
		t.Errorf("pod: %+v", pod.ObjectMeta)
	}
	if c := pod.Spec.Containers[0]; c.Name != "exe" || c.Args != nil || c.Command != nil {
		t.Errorf("container: %+v", c)
	}
}

// testAccountRecreated deletes the account and creates another with its name. The token, which has an hour left, is refused and
// replaced.
func testAccountRecreated(t *testing.T, authority *lanyardtest.Authority) {
	o := newOrder(t, authority)
	o.Act, o.OnRenew = "dashboard", podannotation.Notice{Signal: syscall.SIGHUP}
	o.Audiences = []process.Audience{{Name: "vault", Path: "vault/token"}}
	s := o.start(t, -1)
	name := s.ready()
	first, vault := s.ask("read token"), s.ask("read vault/token")
	accounts := authority.Client().CoreV1().ServiceAccounts(o.Spec.Namespace)
	if err := accounts.Delete(t.Context(), "worker", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	authority.CreateServiceAccount(t, o.Spec.Namespace, "worker")
	if code := status(t, authority, first); code != http.StatusUnauthorized {
		t.Fatalf("the first token: %d", code)
	}
	began := time.Now()
	if got := s.ask("signal"); got != syscall.SIGHUP.String() {
		t.Errorf("got signal %s", got)
	}
	t.Logf("replaced within %v", time.Since(began))
	if code := status(t, authority, s.ask("read token")); code != http.StatusForbidden {
		t.Errorf("the new token: %d", code)
	}
	if s.ask("read vault/token") == vault {
		t.Error("the token for another audience is the old one")
	}
	events, err := authority.Client().CoreV1().Events(o.Spec.Namespace).List(t.Context(), metav1.ListOptions{FieldSelector: "involvedObject.name=" + name})
	if err != nil || len(events.Items) != 1 || events.Items[0].Reason != "TokenRefused" {
		t.Errorf("events %+v, %v", events, err)
	}
	s.order("exit 0")
	if code := s.wait(); code != 0 || strings.Count(s.stderr.String(), "requesting new ones") != 1 || strings.Contains(s.stderr.String(), first) {
		t.Errorf("exit code %d, standard error:\n%s", code, s.stderr)
	}
}

// testRenewal gets SIGHUP after each renewal, and can use the new token when the old one has expired.
func testRenewal(t *testing.T, authority *lanyardtest.Authority, uid int) {
	o := newOrder(t, authority)
	o.Act, o.TTL, o.OnRenew = "dashboard", 2*time.Second, podannotation.Notice{Signal: syscall.SIGHUP}
	s := o.start(t, uid)
	s.ready()
	first := s.ask("read token")
	for range 2 {
		if got := s.ask("signal"); got != syscall.SIGHUP.String() {
			t.Fatalf("signal %v", got)
		}
	}
	eventually(t, "the first token expires", func() bool { return status(t, authority, first) == http.StatusUnauthorized })
	// The command's own client would not do: it reads the file every 50 seconds.
	eventually(t, "a new token is accepted", func() bool { return status(t, authority, s.ask("read token")) == http.StatusForbidden })
	s.order("exit 0")
	if code := s.wait(); code != 0 || s.stderr.Len() != 0 {
		t.Errorf("exit code %d\n%s", code, s.stderr)
	}
}

func testSignals(t *testing.T, authority *lanyardtest.Authority, uid int) {
	o := newOrder(t, authority)
	o.Act = "dashboard"
	s := o.start(t, uid)
	s.ready()
	for _, signal := range []syscall.Signal{syscall.SIGHUP, syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGWINCH} {
		s.signal(signal)
		if got := s.ask("signal"); got != signal.String() {
			t.Errorf("sent %v, got %v", signal, got)
		}
	}
	s.signal(syscall.SIGTERM)
	if code := s.wait(); code != 128+int(syscall.SIGTERM) {
		t.Errorf("exit code %d\n%s", code, s.stderr)
	}
	if left := pods(t, authority, o.Spec.Namespace); len(left) > 0 {
		t.Errorf("%d pods are left", len(left))
	}
}

// testNohup checks that a signal which was ignored from the start stays ignored.
func testNohup(t *testing.T, authority *lanyardtest.Authority) {
	o := newOrder(t, authority)
	o.Act = "dashboard"
	s := o.prepare(t, -1)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	s.process.Path, s.process.Args = "/bin/sh", []string{"sh", "-c", `trap "" HUP; exec "$0"`, self}
	s.startOnPipes()
	s.ready()
	for _, signal := range []syscall.Signal{syscall.SIGHUP, syscall.SIGUSR1} {
		s.signal(signal)
	}
	if got := s.ask("signal"); got != syscall.SIGUSR1.String() {
		t.Errorf("the first signal is %v", got)
	}
	s.signal(syscall.SIGTERM)
	s.wait()
}

func testDeleted(t *testing.T, authority *lanyardtest.Authority, uid int) {
	o := newOrder(t, authority)
	o.Act = "dashboard"
	s := o.start(t, uid)
	name := s.ready()
	if err := authority.Client().CoreV1().Pods(o.Spec.Namespace).Delete(t.Context(), name, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	if code := s.wait(); code != 128+int(syscall.SIGTERM) || !strings.Contains(s.stderr.String(), "delete") {
		t.Errorf("exit code %d\n%s", code, s.stderr)
	}
	if left := pods(t, authority, o.Spec.Namespace); len(left) > 0 {
		t.Errorf("%d pods are left", len(left))
	}
}

// testStubborn runs a command that does not end on SIGTERM.
func testStubborn(t *testing.T, authority *lanyardtest.Authority) {
	o := newOrder(t, authority)
	o.Act, o.Spec.Grace = "stubborn", time.Second
	s := o.start(t, -1)
	name := s.ready()
	now := metav1.DeleteOptions{GracePeriodSeconds: ptr.To(int64(0))}
	if err := authority.Client().CoreV1().Pods(o.Spec.Namespace).Delete(t.Context(), name, now); err != nil {
		t.Fatal(err)
	}
	if got := s.line(); got != syscall.SIGTERM.String() {
		t.Errorf("the first signal is %v", got)
	}
	if code := s.wait(); code != 128+int(syscall.SIGKILL) {
		t.Errorf("exit code %d\n%s", code, s.stderr)
	}
}

// testKilled kills the supervisor. The command ends with it, and the Pod remains until the authority deletes it.
func testKilled(t *testing.T, authority *lanyardtest.Authority, uid int) {
	o := newOrder(t, authority)
	o.Act = "dashboard"
	s := o.start(t, uid)
	s.ready()
	s.signal(syscall.SIGKILL)
	if s.lines.Scan() {
		t.Errorf("the command prints %q", s.lines.Text())
	}
	<-s.ended
	left := pods(t, authority, o.Spec.Namespace)
	if len(left) != 1 {
		t.Fatalf("%d pods are left, want 1", len(left))
	}
	if end := podannotation.LeaseEnd(&left[0], time.Now()); time.Until(end) > o.Lease {
		t.Errorf("the lease ends at %v", end)
	}
}

func testOtherUser(t *testing.T, authority *lanyardtest.Authority) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	o := newOrder(t, authority)
	o.Act, o.UID, o.GID = "dashboard", 4321, 4322
	s := o.start(t, -1)
	s.ready()
	if got := s.ask("ids"); got != "4321 4322 []" {
		t.Errorf("runs as %v", got)
	}
	if got := s.ask("capabilities"); got != "[]" {
		t.Errorf("capabilities left: %v", got)
	}
	if got := s.ask("read token"); strings.Count(got, ".") != 2 {
		t.Errorf("token: %v", got)
	}
	s.order("exit 0")
	if code := s.wait(); code != 0 {
		t.Errorf("exit code %d\n%s", code, s.stderr)
	}
}

// testDocumentedPermissions runs with the permissions that docs/exec.md requires, and no others. The supervisor must still
// notice the deletion of the Pod.
func testDocumentedPermissions(t *testing.T, authority *lanyardtest.Authority) {
	o := newOrder(t, authority)
	authority.CreateServiceAccount(t, o.Spec.Namespace, "runner")
	authority.Grant(t, o.Spec.Namespace, "runner",
		rbacv1.PolicyRule{APIGroups: []string{""}, Resources: []string{"pods"}, Verbs: []string{"create", "patch", "delete"}},
		rbacv1.PolicyRule{APIGroups: []string{""}, Resources: []string{"serviceaccounts/token"}, ResourceNames: []string{"worker"}, Verbs: []string{"create"}},
	)
	o.useCredentials(t, authority.As(t, o.Spec.Namespace, "runner"))
	o.Act, o.Lease, o.Spec.Name = "dashboard", 3*time.Second, "mine"
	s := o.start(t, -1)
	if name := s.ready(); name != "mine" {
		t.Errorf("pod %q", name)
	}
	if got := s.ask("read ca.crt"); got != strings.ReplaceAll(string(o.CA), "\n", "|") {
		t.Errorf("ca.crt: %q", got)
	}
	// Another Pod gets the name. The supervisor must neither mistake it for its own nor delete it.
	client := authority.Client().CoreV1().Pods(o.Spec.Namespace)
	if err := client.Delete(t.Context(), "mine", metav1.DeleteOptions{GracePeriodSeconds: ptr.To(int64(0))}); err != nil {
		t.Fatal(err)
	}
	other := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "mine"}, Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "a", Image: "a"}}}}
	if _, err := client.Create(t.Context(), other, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if code := s.wait(); code != 128+int(syscall.SIGTERM) {
		t.Errorf("exit code %d\n%s", code, s.stderr)
	}
	if _, err := client.Get(t.Context(), "mine", metav1.GetOptions{}); err != nil {
		t.Errorf("the other pod: %v", err)
	}
}

// TestAuthorityRestarts stops the authority while a command runs. The command continues, and gets a new token when the
// authority is back.
func TestAuthorityRestarts(t *testing.T) {
	t.Parallel()
	options := lanyardtest.Options{DataDir: t.TempDir(), MinTokenExpiration: time.Second}
	authority := lanyardtest.StartWith(t, options)
	o := newOrder(t, authority)
	o.Act, o.TTL, o.Lease, o.OnRenew = "dashboard", 2*time.Second, 5*time.Second, podannotation.Notice{Signal: syscall.SIGHUP}
	s := o.start(t, -1)
	name := s.ready()
	first := s.ask("read token")
	port := 0
	if _, err := fmt.Sscanf(authority.URL(), "https://127.0.0.1:%d", &port); err != nil {
		t.Fatal(err)
	}
	authority.Stop(t)
	if got := s.ask("get other"); got == string(metav1.StatusReasonForbidden) {
		t.Fatalf("the authority answers: %v", got)
	}
	options.Port = port
	authority = lanyardtest.StartWith(t, options)
	defer func() {
		if t.Failed() {
			t.Logf("standard error:\n%s", s.stderr)
		}
	}()
	// The command's own client would not do: it reads the file every 50 seconds.
	eventually(t, "a new token is accepted", func() bool {
		token := s.ask("read token")
		return token != first && status(t, authority, token) == http.StatusForbidden
	})
	// The first lease is a minute; those that follow are shorter.
	eventually(t, "the lease is renewed", func() bool { return time.Until(leaseOf(t, authority.Client(), o.Spec.Namespace, name)) <= o.Lease })
	before := leaseOf(t, authority.Client(), o.Spec.Namespace, name)
	eventually(t, "the lease is renewed again", func() bool { return leaseOf(t, authority.Client(), o.Spec.Namespace, name).After(before) })
	s.order("exit 0")
	if code := s.wait(); code != 0 {
		t.Errorf("exit code %d\n%s", code, s.stderr)
	}
	if left := pods(t, authority, o.Spec.Namespace); len(left) > 0 {
		t.Errorf("%d pods are left", len(left))
	}
}

func leaseOf(t *testing.T, client kubernetes.Interface, namespace, name string) time.Time {
	t.Helper()
	pod, err := client.CoreV1().Pods(namespace).Get(t.Context(), name, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return podannotation.LeaseEnd(pod, time.Now())
}

// TestNothingIsLeft starts several supervisors at once, which share a mount point, and looks for mounts and Pods that remain.
func TestNothingIsLeft(t *testing.T) {
	t.Parallel()
	authority := lanyardtest.Start(t)
	o := newOrder(t, authority)
	o.Command = []string{"true"}
	mounts := func() (ours []string) {
		data, err := os.ReadFile("/proc/self/mountinfo")
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.SplitSeq(string(data), "\n") {
			if strings.Contains(line, "kubernetes.io/serviceaccount ") || strings.Contains(line, " /run") || strings.Contains(line, " /tmp ") {
				ours = append(ours, line)
			}
		}
		return ours
	}
	before := mounts()
	for range 3 {
		var running []*supervised
		for _, uid := range users() {
			running = append(running, o.start(t, uid), o.start(t, uid))
		}
		for _, s := range running {
			if code := s.wait(); code != 0 {
				t.Errorf("exit code %d\n%s", code, s.stderr)
			}
		}
	}
	if after := mounts(); !slices.Equal(before, after) {
		t.Errorf("mounts before:\n%s\nafter:\n%s", before, after)
	}
	if left := pods(t, authority, o.Spec.Namespace); len(left) > 0 {
		t.Errorf("%d pods are left", len(left))
	}
}

// TestNotStarted checks each reason for which a command does not start. No Pod may remain.
func TestNotStarted(t *testing.T) {
	t.Parallel()
	authority := lanyardtest.Start(t)
	noProgram := filepath.Join(t.TempDir(), "program")
	if err := os.WriteFile(noProgram, []byte("\x7fELF, or not"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		change func(*order)
		code   int
		want   string
	}{
		"not found":      {func(o *order) { o.Command = []string{"no-such-program"} }, process.ExitNotFound, "not found"},
		"not executable": {func(o *order) { o.Command = []string{"/etc/passwd"} }, process.ExitNotExecutable, "permission denied"},
		"no program":     {func(o *order) { o.Command = []string{noProgram} }, process.ExitNotExecutable, "exec format error"},
		"no account":     {func(o *order) { o.Spec.ServiceAccount = "absent" }, process.ExitFailed, "absent"},
		"no authority":   {func(o *order) { o.Host = "https://127.0.0.1:1" }, process.ExitFailed, "refused"},
		"below a path":   {func(o *order) { o.Host += "/cluster/" }, process.ExitFailed, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := newOrder(t, authority)
			o.Command = []string{"true"}
			test.change(o)
			s := o.start(t, -1)
			if code := s.wait(); code != test.code || !strings.Contains(s.stderr.String(), test.want) {
				t.Errorf("exit code %d, want %d\n%s", code, test.code, s.stderr)
			}
			if left := pods(t, authority, o.Spec.Namespace); len(left) > 0 {
				t.Errorf("%d pods are left", len(left))
			}
		})
	}
}

// TestOnlyRootBecomesAnotherUser expects an error before anything is created, with and without a mount.
func TestOnlyRootBecomesAnotherUser(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("only root can run a supervisor as another user")
	}
	authority := lanyardtest.Start(t)
	for name, noMount := range map[string]bool{"mounted": false, "not mounted": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := newOrder(t, authority)
			o.Command, o.NoMount, o.UID, o.GID = []string{"true"}, noMount, otherUID+1, otherGID
			s := o.start(t, otherUID)
			if code, want := s.wait(), fmt.Sprintf("user %d may not become user %d", otherUID, otherUID+1); code != process.ExitFailed || !strings.Contains(s.stderr.String(), want) {
				t.Errorf("exit code %d\n%s", code, s.stderr)
			}
		})
	}
}

// TestNoMount checks the files, and that a supervisor removes the directory of one that was killed.
func TestNoMount(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	t.Setenv("XDG_RUNTIME_DIR", "")
	authority := lanyardtest.Start(t)
	o := newOrder(t, authority)
	o.NoMount = true
	script := `echo $LANYARD_SERVICEACCOUNT_DIR; cat $LANYARD_SERVICEACCOUNT_DIR/token; echo; cat $KUBECONFIG; echo end; read x`
	o.Command = []string{"sh", "-c", script}
	s := o.start(t, -1)
	dir := s.line()
	token := s.line()
	if code := status(t, authority, token); code != http.StatusForbidden {
		t.Errorf("token: %d", code)
	}
	var kubeconfig []string
	for line := s.line(); line != "end"; line = s.line() {
		kubeconfig = append(kubeconfig, line)
	}
	if text := strings.Join(kubeconfig, "\n"); !strings.Contains(text, "tokenFile: "+dir+"/token") || strings.Contains(text, token) {
		t.Errorf("kubeconfig:\n%s", text)
	}
	for path, want := range map[string]os.FileMode{filepath.Dir(dir): 0o700, dir: 0o700, filepath.Join(dir, "token"): 0o600} {
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != want {
			t.Errorf("%s: %v, %v", path, info, err)
		}
	}
	s.signal(syscall.SIGKILL)
	<-s.ended
	if _, err := os.Stat(dir); err != nil {
		t.Fatalf("the directory of a killed supervisor: %v", err)
	}
	o.Command = []string{"true"}
	if code := o.start(t, -1).wait(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	if left, err := os.ReadDir(os.Getenv("TMPDIR")); err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}
