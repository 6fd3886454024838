// Promise: kubectl works on a running pod as on any cluster.

package systemtest

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// TestKubectlOnARunningPod runs kubectl's commands on a running pod.
func TestKubectlOnARunningPod(t *testing.T) {
	t.Parallel()
	b := commonSite(t).newNamespace(t)
	b.create(t, podOf(t, "app", `
terminationGracePeriodSeconds: 1
containers:
- {name: one, image: lanyard.test/tool:1, args: [log, a, b, c, ;, tick, 50ms]}
- {name: two, image: lanyard.test/tool:1, args: [serve, '7000'], ports: [{containerPort: 7000}]}
`))
	b.create(t, podOf(t, "restarted", "restartPolicy: OnFailure", "log", "attempt", ";", "exit", "1"))
	pod := b.awaitRunning(t, "app")
	for name, test := range map[string]func(*testing.T, *podNamespace, *corev1.Pod){
		"get": checkGetWide, "describe": checkDescribe, "logs": checkLogs, "exec": checkExec, "terminal": checkTerminal, "attach": checkAttach, "port-forward": checkPortForward,
	} {
		t.Run(name, func(t *testing.T) { test(t, b, pod) })
	}
	b.kubectl(t, "delete", "pods", "--all")
}

func checkGetWide(t *testing.T, b *podNamespace, pod *corev1.Pod) {
	got := b.kubectl(t, "get", "pod", "app", "-o", "wide", "--no-headers")
	if want := regexp.MustCompile(`^app +2/2 +Running +0 +\d+s +` + regexp.QuoteMeta(pod.Status.PodIP) + ` +here +<none> +<none>\n$`); !want.MatchString(got) || pod.Status.PodIP == "" {
		t.Errorf("got %q, want %v", got, want)
	}
}

func checkDescribe(t *testing.T, b *podNamespace, pod *corev1.Pod) {
	b.awaitEvent(t, "app", "Started", "Container started")
	got := b.kubectl(t, "describe", "pod", "app")
	for _, want := range []string{
		`Node: +here/127\.0\.0\.2`, `Status: +Running`, `IP: +` + regexp.QuoteMeta(pod.Status.PodIP), `Container ID: +containerd://[0-9a-f]{64}`,
		`Image ID: +\S+`, `State: +Running`, `Ready: +True`, `/var/run/secrets/kubernetes\.io/serviceaccount from kube-api-access-\w+ \(ro\)`,
		`TokenExpirationSeconds: +3607`, `Normal +Pulled +\S+ +lanyard-agent +spec\.containers\{two\}: Container image "lanyard\.test/tool:1" already present on machine`,
		`Normal +Created +\S+ +lanyard-agent +spec\.containers\{one\}: Container created`, `Normal +Started .* Container started`,
	} {
		if !regexp.MustCompile(want).MatchString(got) {
			t.Errorf("described without %s:\n%s", want, got)
		}
	}
}

func checkLogs(t *testing.T, b *podNamespace, _ *corev1.Pod) {
	if got := b.kubectl(t, "logs", "app", "-c", "one"); !strings.HasPrefix(got, "a\nb\nc\n1\n") {
		t.Errorf("logs: %q", got)
	}
	if got := b.kubectl(t, "logs", "app", "two"); got != "serving\n" {
		t.Errorf("logs of the other container: %q", got)
	}
	if got := b.kubectl(t, "logs", "app", "-c", "one", "--tail=1"); strings.Count(got, "\n") != 1 || strings.HasPrefix(got, "a") {
		t.Errorf("logs --tail=1: %q", got)
	}
	if got := b.kubectl(t, "logs", "app", "-c", "one", "--limit-bytes=3"); got != "a\nb" {
		t.Errorf("logs --limit-bytes=3: %q", got)
	}
	if got := b.kubectl(t, "logs", "app", "-c", "two", "--timestamps"); !regexp.MustCompile(`^20\d\d-\S+Z serving\n$`).MatchString(got) {
		t.Errorf("logs --timestamps: %q", got)
	}
	f := b.stream(t, "logs", "-f", "app", "-c", "one")
	f.await("c")
	f.await("3")
	f.stop()
	b.await(t, "restarted", "restarted", func(pod *corev1.Pod) bool {
		return len(pod.Status.ContainerStatuses) == 1 && pod.Status.ContainerStatuses[0].RestartCount > 0
	})
	if got := b.kubectl(t, "logs", "restarted", "--previous"); got != "attempt\n" {
		t.Errorf("logs --previous: %q", got)
	}
	if _, stderr, code := b.try(t, "logs", "app", "-c", "two", "--previous"); code != 1 || !strings.Contains(stderr, `previous terminated container "two" in pod "app" not found`) {
		t.Errorf("logs --previous of a container that has none: %q, %d", stderr, code)
	}
}

func checkExec(t *testing.T, b *podNamespace, _ *corev1.Pod) {
	overBothProtocols(t, func(t *testing.T, spdy bool) {
		run := func(stdin string, args ...string) (stdout, stderr string, code int) {
			command := kubectl(t, b.Kubeconfig(), b.namespace, spdy, append([]string{"exec"}, args...)...)
			command.Stdin = strings.NewReader(stdin)
			return runCommand(t, command)
		}
		if stdout, stderr, code := run("", "app", "-c", "two", "--", "/bin/tool", "log", "out", ";", "log-stderr", "err", ";", "exit", "42"); stdout != "out\n" || !strings.HasPrefix(stderr, "err\n") || code != 42 {
			t.Errorf("exec: %q, %q, %d", stdout, stderr, code)
		}
		text := strings.Repeat("0123456789abcde\n", 1<<14)
		if stdout, stderr, code := run(text, "-i", "app", "-c", "two", "--", "/bin/tool", "echo-stdin"); stdout != text || code != 0 {
			t.Errorf("exec -i: %d bytes, %q, %d", len(stdout), stderr, code)
		}
		if _, stderr, code := run("", "app", "--", "/bin/absent"); code == 0 || !strings.Contains(stderr, "no such file or directory") {
			t.Errorf("an absent program: %q, %d", stderr, code)
		}
	})
	if _, stderr, code := b.try(t, "exec", "app", "-c", "three", "--", "x"); code != 1 || !strings.Contains(stderr, "container three is not valid for pod app") {
		t.Errorf("an absent container: %q, %d", stderr, code)
	}
}

// checkTerminal runs kubectl exec -it on a terminal of its own.
func checkTerminal(t *testing.T, b *podNamespace, _ *corev1.Pod) {
	master, terminal := openTerminal(t)
	command := b.command(t, "exec", "-it", "app", "-c", "two", "--", "/bin/tool", "tty", ";", "echo-stdin")
	command.Stdin, command.Stdout, command.Stderr = terminal, terminal, terminal
	command.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	_ = terminal.Close()
	ended := async(command.Wait)
	said := make(chan string, 64)
	go func() {
		defer close(said)
		buffer := make([]byte, 4096)
		for {
			n, err := master.Read(buffer)
			if err != nil {
				return // EIO at the end of the session
			}
			said <- string(buffer[:n])
		}
	}()
	await := func(want string) {
		all, timeout := "", time.After(waitLimit)
		for !strings.Contains(all, want) {
			select {
			case more, ok := <-said:
				if all += more; !ok {
					t.Fatalf("the session ended before %q: %q", want, all)
				}
			case <-timeout:
				t.Fatalf("no %q in %q", want, all)
			}
		}
	}
	await("true\r\n")
	if _, err := io.WriteString(master, "hello\n"); err != nil {
		t.Fatal(err)
	}
	await("hello\r\nhello\r\n") // as typed, and as echoed by the program
	if _, err := master.Write([]byte{4}); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-ended:
		if err != nil {
			t.Errorf("kubectl ended with %v", err)
		}
	case <-time.After(waitLimit):
		t.Error("the session did not end with its input")
	}
}

// openTerminal returns both ends of a pseudo-terminal.
func openTerminal(t *testing.T) (master, terminal *os.File) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skipf("no pseudo-terminals here: %v", err)
	}
	t.Cleanup(func() { _ = master.Close() })
	number, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0)
	}
	if err != nil {
		t.Skipf("no pseudo-terminals here: %v", err)
	}
	if terminal, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0); err != nil {
		t.Skipf("no pseudo-terminals here: %v", err)
	}
	return master, terminal
}

func checkAttach(t *testing.T, b *podNamespace, _ *corev1.Pod) {
	s := b.stream(t, "attach", "app", "-c", "one")
	defer s.stop()
	if line, ok := s.next(); !ok || !regexp.MustCompile(`^\d+$`).MatchString(line) {
		t.Errorf("attached to %q", line)
	}
}

func checkPortForward(t *testing.T, b *podNamespace, _ *corev1.Pod) {
	overBothProtocols(t, func(t *testing.T, spdy bool) {
		command := kubectl(t, b.Kubeconfig(), b.namespace, spdy, "port-forward", "app", ":7000")
		out, err := command.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := command.Start(); err != nil {
			t.Fatal(err)
		}
		defer func() { _ = command.Process.Kill(); _ = command.Wait() }()
		connection, err := net.Dial("tcp", "127.0.0.1:"+awaitPort(t, out))
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = connection.Close() }()
		text := bytes.Repeat([]byte("x"), 1<<16)
		written := async(func() error { _, err := connection.Write(text); return err })
		got := make([]byte, len(text))
		_ = connection.SetReadDeadline(time.Now().Add(waitLimit))
		if n, err := io.ReadFull(connection, got); err != nil || !bytes.Equal(got, text) {
			t.Errorf("%d bytes came back, %v", n, err)
		}
		if err := <-written; err != nil {
			t.Error(err)
		}
	})
}

// TestKubectlDelete deletes pods gracefully, with a short grace period, and by force.
func TestKubectlDelete(t *testing.T) {
	t.Parallel()
	b := commonSite(t).newNamespace(t)
	for _, name := range []string{"graceful", "impatient", "forced"} {
		b.create(t, podOf(t, name, "terminationGracePeriodSeconds: 300", map[bool]string{true: "sleep", false: "stubborn"}[name == "graceful"]))
	}
	held := map[string]string{}
	for _, name := range []string{"graceful", "impatient", "forced"} {
		held[name] = strings.TrimPrefix(b.awaitRunning(t, name).Status.ContainerStatuses[0].ContainerID, "containerd://")
	}
	for name, flags := range map[string][]string{"graceful": nil, "impatient": {"--grace-period=1"}, "forced": {"--grace-period=0", "--force"}} {
		started := time.Now()
		b.kubectl(t, append([]string{"delete", "pod", name}, flags...)...)
		if took := time.Since(started); took > waitLimit/2 {
			t.Errorf("%s: took %v", name, took)
		}
		if _, err := b.Client().CoreV1().Pods(b.namespace).Get(t.Context(), name, metav1.GetOptions{}); !apierrors.IsNotFound(err) {
			t.Errorf("%s: still exists: %v", name, err)
		}
	}
	b.awaitEvent(t, "graceful", "Killing", "Stopping container c")
	for name, id := range held {
		eventually(t, name+" is gone from the runtime", func(context.Context) bool {
			return !strings.Contains(strings.Join(b.runtimeContainers(t), " "), id)
		})
	}
}
