// Promise: kubectl logs, exec, attach, cp and port-forward reach the container, for callers that may create a session.

package systemtest

import (
	"bytes"
	"cmp"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/remotecommand"
	"k8s.io/utils/ptr"
)

// kubectl returns a command that runs kubectl with the kubeconfig, or with the administrator's if it is "".
func (s *sessionFixture) kubectl(t *testing.T, kubeconfig string, spdy bool, args ...string) *exec.Cmd {
	t.Helper()
	return kubectl(t, cmp.Or(kubeconfig, s.authority.Kubeconfig()), s.namespace, spdy, args...)
}

func TestExec(t *testing.T) {
	t.Parallel()
	s := newSessionFixture(t)
	pod := s.pod.Name
	overBothProtocols(t, func(t *testing.T, spdy bool) {
		stdout, stderr, code := runCommand(t, s.kubectl(t, "", spdy, "exec", pod, "--", "sh", "-c", "echo out; echo err >&2; exit 7"))
		if stdout != "out\n" || !strings.HasPrefix(stderr, "err\n") || code != 7 {
			t.Errorf("got %q, %q, %d", stdout, stderr, code)
		}
		cat := s.kubectl(t, "", spdy, "exec", "-i", pod, "--", "cat")
		text := strings.Repeat("0123456789abcdef", 1<<14)
		cat.Stdin = strings.NewReader(text)
		if stdout, stderr, code = runCommand(t, cat); stdout != text || code != 0 {
			t.Errorf("cat: %d bytes, %q, %d", len(stdout), stderr, code)
		}
		if stdout, stderr, code = runCommand(t, s.kubectl(t, "", spdy, "attach", pod)); stdout != "attached to id-c\n" || code != 0 {
			t.Errorf("attach: got %q, %q, %d", stdout, stderr, code)
		}
		if _, stderr, code = runCommand(t, s.kubectl(t, "", spdy, "exec", pod, "-c", "d", "--", "true")); !strings.Contains(stderr, "container d is not valid for pod "+pod) || code != 1 {
			t.Errorf("no such container: %q, %d", stderr, code)
		}
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "here"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, stderr, code = runCommand(t, s.kubectl(t, "", spdy, "cp", filepath.Join(dir, "here"), pod+":"+filepath.Join(dir, "there"))); code != 0 {
			t.Fatalf("cp: %q", stderr)
		}
		if copied, err := os.ReadFile(filepath.Join(dir, "there")); err != nil || string(copied) != text {
			t.Errorf("copied %d bytes, %v", len(copied), err)
		}
	})
}

func TestTerminalSize(t *testing.T) {
	t.Parallel()
	s := newSessionFixture(t)
	request := s.authority.Client().CoreV1().RESTClient().Post().Namespace(s.namespace).Resource("pods").Name(s.pod.Name).SubResource("exec").
		Param("command", "sh").Param("command", "-c").Param("command", "read x; echo got $x").Param("stdin", "true").Param("stdout", "true").Param("tty", "true")
	for name, make := range map[string]func() (remotecommand.Executor, error){
		"WebSocket": func() (remotecommand.Executor, error) {
			return remotecommand.NewWebSocketExecutor(s.authority.Config(), "GET", request.URL().String())
		},
		"SPDY": func() (remotecommand.Executor, error) {
			return remotecommand.NewSPDYExecutor(s.authority.Config(), "POST", request.URL())
		},
	} {
		executor, err := make()
		if err != nil {
			t.Fatal(err)
		}
		in, typed := io.Pipe()
		var out bytes.Buffer
		ended := async(func() error {
			return executor.StreamWithContext(t.Context(), remotecommand.StreamOptions{Stdin: in, Stdout: &out, Tty: true, TerminalSizeQueue: &oneSize{}})
		})
		if got := <-s.runtime.resized; got != "120x40" {
			t.Errorf("%s: resized to %s", name, got)
		}
		if _, err := io.WriteString(typed, "hello\n"); err != nil {
			t.Fatal(err)
		}
		_ = typed.Close()
		if err := <-ended; err != nil || out.String() != "got hello\n" {
			t.Errorf("%s: %q, %v", name, out.String(), err)
		}
	}
}

// oneSize is a terminal whose size is sent once.
type oneSize struct{ sent bool }

func (o *oneSize) Next() *remotecommand.TerminalSize {
	if o.sent {
		return nil
	}
	o.sent = true
	return &remotecommand.TerminalSize{Width: 120, Height: 40}
}

func TestLogs(t *testing.T) {
	t.Parallel()
	s := newSessionFixture(t)
	for _, test := range []struct {
		args, want string
		code       int
	}{
		{"", "id-c: one\nid-c: two\nid-c: three\n", 0},
		{"-c c --tail=1", "id-c: three\n", 0},
		{"-c d", "container d is not valid for pod " + s.pod.Name, 1},
		{"--previous", fmt.Sprintf("previous terminated container \"c\" in pod %q not found", s.pod.Name), 1},
		{"--limit-bytes=-1", "--limit-bytes must be greater than 0", 1},
	} {
		stdout, stderr, code := runCommand(t, s.kubectl(t, "", false, append([]string{"logs", s.pod.Name}, strings.Fields(test.args)...)...))
		if !strings.Contains(stdout+stderr, test.want) || code != test.code || code == 0 && stdout != test.want {
			t.Errorf("%s: got %q, %q, %d", test.args, stdout, stderr, code)
		}
	}
	all := `--since-time=2026-11-02T03:04:05Z --timestamps --limit-bytes=9`
	runCommand(t, s.kubectl(t, "", false, append([]string{"logs", s.pod.Name}, strings.Fields(all)...)...))
	s.runtime.mu.Lock()
	got := s.runtime.logged[len(s.runtime.logged)-1]
	s.runtime.mu.Unlock()
	if !got.Timestamps || got.SinceTime == nil || got.SinceTime.UTC().Format(time.RFC3339) != "2026-11-02T03:04:05Z" || *got.LimitBytes != 9 || got.Follow {
		t.Errorf("the runtime got the options %+v", got)
	}
	pods := s.authority.Client().CoreV1().Pods(s.namespace)
	_, err := pods.GetLogs(s.pod.Name, &corev1.PodLogOptions{InsecureSkipTLSVerifyBackend: true}).Stream(t.Context())
	if err == nil || !strings.Contains(err.Error(), "insecureSkipTLSVerifyBackend is not supported") {
		t.Errorf("without verification: %v", err)
	}
	_, err = pods.GetLogs(s.pod.Name, &corev1.PodLogOptions{TailLines: ptr.To[int64](-1)}).Stream(t.Context())
	if err == nil || !strings.Contains(err.Error(), "tailLines: Invalid value: -1") {
		t.Errorf("negative tail: %v", err)
	}
}

// TestFollowedLogEndsWithTheAuthority checks that a followed log delivers its lines at once, and that a log and a session do
// not delay the end of the authority.
func TestFollowedLogEndsWithTheAuthority(t *testing.T) {
	t.Parallel()
	s := newSessionFixture(t)
	stream, err := s.authority.Client().CoreV1().Pods(s.namespace).GetLogs(s.pod.Name, &corev1.PodLogOptions{Follow: true}).Stream(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = stream.Close() }()
	first := make([]byte, len("id-c: one\n"))
	if _, err := io.ReadFull(stream, first); err != nil || string(first) != "id-c: one\n" {
		t.Fatalf("%q, %v", first, err)
	}
	session := s.startSession(t, false)
	started := time.Now()
	s.authority.Stop(t)
	if took := time.Since(started); took > 3*time.Second {
		t.Errorf("the authority took %v to stop", took)
	}
	if rest, _ := io.ReadAll(stream); string(rest) != "id-c: two\nid-c: three\n" {
		t.Errorf("read %q to the end", rest)
	}
	if err := session.Wait(); err == nil {
		t.Error("kubectl exec succeeded although its command was cut off")
	}
}

// startSession starts kubectl exec with a command that does not end, and returns when the command runs.
func (s *sessionFixture) startSession(t *testing.T, spdy bool) *exec.Cmd {
	t.Helper()
	session := s.kubectl(t, "", spdy, "exec", s.pod.Name, "--", "sh", "-c", "echo up; sleep 600")
	out, err := session.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := session.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(out, make([]byte, 3)); err != nil {
		t.Fatal(err)
	}
	return session
}

// TestSessionsEndWithTheNodesServer does not check the exit code: kubectl treats a session that ends without a status as a
// success.
func TestSessionsEndWithTheNodesServer(t *testing.T) {
	t.Parallel()
	s := newSessionFixture(t)
	for _, spdy := range []bool{false, true} {
		session := s.startSession(t, spdy)
		s.stop()
		_ = session.Wait()
		s.start()
	}
}

var forwarding = regexp.MustCompile(`Forwarding from 127\.0\.0\.1:(\d+)`)

func TestPortForward(t *testing.T) {
	t.Parallel()
	s := newSessionFixture(t)
	target := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, "hello "+r.URL.Path) }))
	defer target.Close()
	parsed, err := url.Parse(target.URL)
	if err != nil {
		t.Fatal(err)
	}
	overBothProtocols(t, func(t *testing.T, spdy bool) {
		session := s.kubectl(t, "", spdy, "port-forward", s.pod.Name, ":"+parsed.Port())
		out, err := session.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := session.Start(); err != nil {
			t.Fatal(err)
		}
		defer func() { _ = session.Wait() }()
		defer func() { _ = session.Process.Kill() }()
		port := awaitPort(t, out)
		client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
		for i := range 5 {
			answer, err := client.Get(fmt.Sprintf("http://127.0.0.1:%s/%d", port, i))
			if err != nil {
				t.Fatal(err)
			}
			body, err := io.ReadAll(answer.Body)
			_ = answer.Body.Close()
			if err != nil || string(body) != fmt.Sprintf("hello /%d", i) {
				t.Errorf("%q, %v", body, err)
			}
		}
	})
}

// awaitPort returns the local port that kubectl port-forward reports.
func awaitPort(t *testing.T, out io.Reader) string {
	t.Helper()
	var said []byte
	for {
		part := make([]byte, 256)
		n, err := out.Read(part)
		said = append(said, part[:n]...)
		if found := forwarding.FindSubmatch(said); found != nil {
			go func() { _, _ = io.Copy(io.Discard, out) }()
			return string(found[1])
		}
		if err != nil {
			t.Fatalf("%q: %v", said, err)
		}
	}
}

// accountKubeconfig returns the kubeconfig of a new account with these rights in the fixture's namespace.
func (s *sessionFixture) accountKubeconfig(t *testing.T, name string, rules ...rbacv1.PolicyRule) string {
	t.Helper()
	s.authority.CreateServiceAccount(t, s.namespace, name)
	s.authority.Grant(t, s.namespace, name, rules...)
	return writeKubeconfig(t, s.authority.As(t, s.namespace, name), rest.ImpersonationConfig{})
}

// TestReadersGetLogsButNoSessions checks that an account which may get everything can read logs, but cannot exec, attach or forward
// ports.
func TestReadersGetLogsButNoSessions(t *testing.T) {
	t.Parallel()
	s := newSessionFixture(t)
	reader := s.accountKubeconfig(t, "reader", rbacv1.PolicyRule{Verbs: []string{"get", "list", "watch"}, APIGroups: []string{"*"}, Resources: []string{"*"}})
	half := s.accountKubeconfig(t, "half", rbacv1.PolicyRule{Verbs: []string{"get"}, APIGroups: []string{""}, Resources: []string{"pods"}},
		rbacv1.PolicyRule{Verbs: []string{"get", "create"}, APIGroups: []string{""}, Resources: []string{"pods/exec"}})
	overBothProtocols(t, func(t *testing.T, spdy bool) {
		for subresource, command := range map[string][]string{
			"exec": {"exec", s.pod.Name, "--", "echo", "out"}, "attach": {"attach", s.pod.Name}, "portforward": {"port-forward", s.pod.Name, ":80"},
		} {
			stdout, stderr, code := runCommand(t, s.kubectl(t, reader, spdy, command...))
			if code == 0 || stdout != "" || !strings.Contains(stderr, `cannot create resource "pods/`+subresource+`"`) {
				t.Errorf("%s: got %q, %q, %d", subresource, stdout, stderr, code)
			}
		}
		if stdout, stderr, code := runCommand(t, s.kubectl(t, half, spdy, "exec", s.pod.Name, "--", "echo", "out")); stdout != "out\n" || code != 0 {
			t.Errorf("exec with create on pods/exec: %q, %q, %d", stdout, stderr, code)
		}
		if _, stderr, code := runCommand(t, s.kubectl(t, half, spdy, "attach", s.pod.Name)); code == 0 || !strings.Contains(stderr, "cannot") {
			t.Errorf("attach with create on pods/exec only: %q, %d", stderr, code)
		}
	})
	if stdout, stderr, code := runCommand(t, s.kubectl(t, reader, false, "logs", s.pod.Name, "--tail=1")); stdout != "id-c: three\n" || code != 0 {
		t.Errorf("logs: %q, %q, %d", stdout, stderr, code)
	}
}

func TestSessionsByImpersonation(t *testing.T) {
	t.Parallel()
	s := newSessionFixture(t)
	create := rbacv1.PolicyRule{Verbs: []string{"get", "create"}, APIGroups: []string{""}, Resources: []string{"pods", "pods/exec"}}
	s.accountKubeconfig(t, "able", create)
	s.accountKubeconfig(t, "unable", rbacv1.PolicyRule{Verbs: []string{"get"}, APIGroups: []string{""}, Resources: []string{"pods", "pods/exec"}})
	overBothProtocols(t, func(t *testing.T, spdy bool) {
		for name, may := range map[string]bool{"able": true, "unable": false} {
			who := rest.ImpersonationConfig{UserName: "system:serviceaccount:" + s.namespace + ":" + name, Groups: []string{"system:authenticated"}}
			stdout, stderr, code := runCommand(t, s.kubectl(t, writeKubeconfig(t, s.authority.Config(), who), spdy, "exec", s.pod.Name, "--", "echo", "out"))
			if (code == 0) != may || may && stdout != "out\n" || !may && !strings.Contains(stderr, "forbidden") {
				t.Errorf("%s: %q, %q, %d", name, stdout, stderr, code)
			}
		}
	})
}
