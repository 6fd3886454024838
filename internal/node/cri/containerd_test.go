//go:build linux

package cri

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/ptr"

	"lanyard.dev/internal/node/nodetest"
	"lanyard.dev/internal/podannotation"
	"lanyard.dev/internal/podoptions"
)

// TestPodLifeCycle runs a pod from its creation to its removal, with a container that runs twice.
func TestPodLifeCycle(t *testing.T) {
	t.Parallel()
	r := newRuntime(t)
	before := time.Now()
	pod := podOf("log", "first", ";", "exit", "3")
	pod.Annotations = map[string]string{podannotation.OnRenew: "signal:HUP"}
	ran := start(t, r, pod)
	first := ran.await(ran.id, Exited)
	second, err := ran.add(t.Context(), 1)
	if err != nil {
		t.Fatal(err)
	}
	pods, err := r.Pods(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	want := []Pod{{
		UID: ran.pod.UID, Namespace: "default", Name: "pod", Sandboxes: []Sandbox{{ID: ran.sandbox, Ready: true, OnRenew: "signal:HUP"}},
		Containers: []Container{
			{ID: second, SandboxID: ran.sandbox, Name: "main", Attempt: 1, State: Created, Image: "lanyard.test/tool:1"},
			{ID: ran.id, SandboxID: ran.sandbox, Name: "main", State: Exited, Image: "lanyard.test/tool:1", ExitCode: 3, Reason: "Error"},
		},
	}}
	varying := cmp.Options{
		cmpopts.IgnoreFields(Sandbox{}, "CreatedAt", "IPs"), cmpopts.IgnoreFields(Container{}, "ImageID", "CreatedAt", "StartedAt", "FinishedAt"),
	}
	if diff := cmp.Diff(want, pods, varying); diff != "" {
		t.Errorf("pods, -want +got:\n%s", diff)
	}
	if len(pods[0].Sandboxes[0].IPs) != 1 || pods[0].Sandboxes[0].CreatedAt.Before(before) || !strings.Contains(first.ImageID, "sha256:") {
		t.Errorf("sandbox %+v, image ID %q", pods[0].Sandboxes[0], first.ImageID)
	}
	if first.StartedAt.Before(first.CreatedAt) || first.FinishedAt.Before(first.CreatedAt) || first.CreatedAt.Before(before) {
		t.Errorf("times of the container: %+v", first)
	}
	if log := ran.logs(second, &corev1.PodLogOptions{}); log != "" {
		t.Errorf("a container that was not started has the log %q", log)
	}
	if err := r.StartContainer(t.Context(), second); err != nil {
		t.Fatal(err)
	}
	ran.await(second, Exited)
	ran.end(second)
}

// end removes the pod and its logs, twice, and checks that nothing remains.
func (s started) end(containers ...string) {
	s.t.Helper()
	ctx := s.t.Context()
	for range 2 {
		var all []error
		for _, id := range containers {
			all = append(all, s.runtime.StopContainer(ctx, id, time.Second), s.runtime.RemoveContainer(ctx, id))
		}
		all = append(all, s.runtime.StopSandbox(ctx, s.sandbox), s.runtime.RemoveSandbox(ctx, s.sandbox))
		all = append(all, s.runtime.RemovePodLogs(s.pod.Namespace, s.pod.Name, s.pod.UID))
		if err := errors.Join(all...); err != nil {
			s.t.Error(err)
		}
		if pods, err := s.runtime.Pods(ctx); err != nil || len(pods) != 0 {
			s.t.Errorf("left: %+v, %v", pods, err)
		}
	}
	if left, err := os.ReadDir(s.runtime.config.LogDir); err != nil || len(left) != 0 {
		s.t.Errorf("left in the log directory: %v, %v", left, err)
	}
}

func TestEnvironment(t *testing.T) {
	t.Parallel()
	r := newRuntime(t)
	pod := podOf("pwd", ";", "print-env", "FROM", "KEPT", "OWN", "data-1", "a b:c", ";", "hostname")
	pod.Spec.Hostname = "named"
	container := &pod.Spec.Containers[0]
	container.Image, container.Env = "lanyard.test/env:1", []corev1.EnvVar{{Name: "FROM", Value: "pod"}, {Name: "OWN", Value: "$(FROM) stays"}, {Name: "data-1", Value: "1"}, {Name: "a b:c", Value: "2"}}
	if got, want := output(t, r, pod), "/tmp\nFROM=pod\nKEPT=image\nOWN=$(FROM) stays\ndata-1=1\na b:c=2\nnamed\n"; got != want {
		t.Errorf("the container has the environment\n%s\nwant\n%s", got, want)
	}
	pod = podOf()
	pod.Spec.Containers[0].Command, pod.Spec.Containers[0].WorkingDir = []string{"/bin/tool", "pwd"}, "/bin"
	if got := output(t, r, pod); got != "/bin\n" {
		t.Errorf("with a command and directory of its own: %q", got)
	}
}

func TestMounts(t *testing.T) {
	t.Parallel()
	r := newRuntime(t)
	dir := t.TempDir()
	file := writeFile(t, dir, "file", "content")
	pod := podOf("cat", "/in/file", "/one", ";", "write", "/in/new", "written", ";", "write", "/read/new", "refused")
	ran := start(t, r, pod,
		Mount{HostPath: dir, ContainerPath: "in"},
		Mount{HostPath: dir, ContainerPath: "/read", ReadOnly: true}, Mount{HostPath: file, ContainerPath: "/one"})
	if ended := ran.await(ran.id, Exited); ended.ExitCode != 1 {
		t.Errorf("exit code %d, want the exit code of the refused write", ended.ExitCode)
	}
	if log := ran.logs(ran.id, &corev1.PodLogOptions{}); !strings.Contains(log, "contentcontent") || !strings.Contains(log, "read-only file system") {
		t.Errorf("the output of the container is %q", log)
	}
	if written, err := os.ReadFile(filepath.Join(dir, "new")); string(written) != "written" {
		t.Errorf("the container wrote %q, %v", written, err)
	}
}

func TestNetwork(t *testing.T) {
	t.Parallel()
	r := newRuntime(t)
	own := start(t, r, podOf("serve", "8080"))
	other := podOf("sleep")
	other.Spec.HostNetwork, other.Spec.HostPID = true, true
	host := start(t, r, other)
	pods, err := r.Pods(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, pod := range pods {
		if hosts := pod.UID == other.UID; (len(pod.Sandboxes[0].IPs) == 0) != hosts {
			t.Errorf("host network %v: addresses %v", hosts, pod.Sandboxes[0].IPs)
		}
		if pod.UID == own.pod.UID {
			own.awaitLog("serving")
			if got := output(t, r, podOf("dial", pod.Sandboxes[0].IPs[0]+":8080", ";", "log", "reached")); got != "reached\n" {
				t.Errorf("the output of another pod is %q", got)
			}
		}
	}
	if path, err := r.NetworkNamespace(t.Context(), host.sandbox); path != "" || err != nil {
		t.Errorf("namespace of the machine: %q, %v", path, err)
	}
	path, err := r.NetworkNamespace(t.Context(), own.sandbox)
	if err != nil {
		t.Fatal(err)
	}
	pid, err := r.firstProcess(t.Context(), own.id)
	if err != nil {
		t.Fatal(err)
	}
	named, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	joined, err := os.Stat(info{Pid: pid}.network())
	if err != nil || !os.SameFile(named, joined) {
		t.Errorf("%s is not the namespace of the container: %v", path, err)
	}
}

func TestProcessNamespaces(t *testing.T) {
	t.Parallel()
	r := newRuntime(t)
	for name, test := range map[string]struct {
		change func(*corev1.PodSpec)
		first  bool // the container's process has the PID 1 in its namespace
		sees   string
	}{
		"own":    {func(*corev1.PodSpec) {}, true, "/bin/tool"},
		"shared": {func(s *corev1.PodSpec) { s.ShareProcessNamespace = ptr.To(true) }, false, "/bin/pause"},
		"host":   {func(s *corev1.PodSpec) { s.HostPID = true }, false, "containerd --config"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			pod := podOf("pid", ";", "processes")
			test.change(&pod.Spec)
			log := output(t, r, pod)
			if strings.HasPrefix(log, "1\n") != test.first || !strings.Contains(log, test.sees) {
				t.Errorf("the container sees\n%s", log)
			}
		})
	}
}

func TestStop(t *testing.T) {
	t.Parallel()
	r := newRuntime(t)
	for name, test := range map[string]struct {
		step  []string
		ready string // the step logs this once its handling of signals is set up
		grace time.Duration
		code  int32
	}{
		"graceful":    {[]string{"tick", "10s"}, "1", 30 * time.Second, 0},
		"stubborn":    {[]string{"stubborn"}, "stubborn", time.Millisecond, 137},
		"immediately": {[]string{"tick", "10s"}, "1", 0, 137},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ran := start(t, r, podOf(test.step...))
			ran.awaitLog(test.ready)
			begun := time.Now()
			if err := r.StopContainer(t.Context(), ran.id, test.grace); err != nil {
				t.Fatal(err)
			}
			if ended := ran.find(t.Context(), ran.id); ended.State != Exited || ended.ExitCode != test.code {
				t.Errorf("stopped: %+v", ended)
			}
			if took := time.Since(begun); took > 25*time.Second {
				t.Errorf("took %v", took)
			}
		})
	}
}

func TestSignal(t *testing.T) {
	t.Parallel()
	r := newRuntime(t)
	ran := start(t, r, podOf("on-hup", "/tmp/hups"))
	ran.awaitLog("listening")
	if err := r.Signal(t.Context(), ran.id, syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	ran.awaitLog("hup")
	if err := r.StopContainer(t.Context(), ran.id, time.Minute); err != nil {
		t.Fatal(err)
	}
	if err := r.Signal(t.Context(), ran.id, syscall.SIGHUP); err == nil || !strings.Contains(err.Error(), "is not running") {
		t.Errorf("signal to a container that has ended: %v", err)
	}
}

func TestExec(t *testing.T) {
	t.Parallel()
	r := newRuntime(t)
	ran := start(t, r, podOf("sleep"))
	for name, test := range map[string]struct {
		command []string
		code    int
		output  string
	}{
		"output":  {[]string{"/bin/tool", "log-stderr", "b", ";", "log", "a"}, 0, "a\nb\n"},
		"code":    {[]string{"/bin/tool", "log", "x", ";", "exit", "7"}, 7, "x\n"},
		"bounded": {[]string{"/bin/tool", "log-many", "100000"}, 0, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			code, output, err := r.Exec(t.Context(), ran.id, test.command, patience)
			if err != nil || code != test.code || test.output != "" && string(output) != test.output || len(output) > maxOutput {
				t.Errorf("code %d, %d bytes, %v", code, len(output), err)
			}
		})
	}
	t.Run("missing", func(t *testing.T) {
		t.Parallel()
		if _, _, err := r.Exec(t.Context(), ran.id, []string{"/bin/none"}, patience); err == nil || !strings.Contains(err.Error(), "no such file") {
			t.Errorf("a program that is not there: %v", err)
		}
	})
	t.Run("timeout", func(t *testing.T) {
		t.Parallel()
		if _, _, err := r.Exec(t.Context(), ran.id, []string{"/bin/tool", "stubborn"}, time.Millisecond); !errors.Is(err, ErrTimedOut) {
			t.Errorf("a command that does not end: %v", err)
		}
		if _, _, err := r.Exec(t.Context(), ran.id, []string{"/bin/tool", "id"}, 0); err == nil {
			t.Error("a command may run forever")
		}
	})
}

// TestPodsOfOtherAgents checks that an agent does not touch the pods of another agent at the same runtime.
func TestPodsOfOtherAgents(t *testing.T) {
	t.Parallel()
	r, other := newRuntime(t), newRuntime(t)
	pod := podOf("sleep")
	pod.Labels = map[string]string{agentLabel: other.config.AgentID} // a pod cannot assign itself to another agent
	ran := start(t, r, pod)
	ctx := t.Context()
	if pods, err := other.Pods(ctx); err != nil || len(pods) != 0 {
		t.Errorf("the other agent has %+v, %v", pods, err)
	}
	for name, call := range map[string]func() error{
		"StopSandbox":     func() error { return other.StopSandbox(ctx, ran.sandbox) },
		"RemoveSandbox":   func() error { return other.RemoveSandbox(ctx, ran.sandbox) },
		"StartContainer":  func() error { return other.StartContainer(ctx, ran.id) },
		"StopContainer":   func() error { return other.StopContainer(ctx, ran.id, 0) },
		"RemoveContainer": func() error { return other.RemoveContainer(ctx, ran.id) },
		"Signal":          func() error { return other.Signal(ctx, ran.id, syscall.SIGKILL) },
		"Logs":            func() error { return other.Logs(ctx, ran.id, &corev1.PodLogOptions{}, nil, nil) },
		"Exec":            func() error { _, _, err := other.Exec(ctx, ran.id, []string{"/bin/tool"}, patience); return err },
		"ExecURL": func() error {
			_, err := other.ExecURL(ctx, ran.id, []string{"/bin/tool"}, podoptions.Streams{})
			return err
		},
		"AttachURL":        func() error { _, err := other.AttachURL(ctx, ran.id, podoptions.Streams{Stdout: true}); return err },
		"PortForwardURL":   func() error { _, err := other.PortForwardURL(ctx, ran.sandbox, nil); return err },
		"NetworkNamespace": func() error { _, err := other.NetworkNamespace(ctx, ran.sandbox); return err },
		"CreateContainer": func() error {
			_, err := other.CreateContainer(ctx, ContainerSpec{Pod: pod, SandboxID: ran.sandbox, Container: &pod.Spec.Containers[0]})
			return err
		},
	} {
		if err := call(); !errors.Is(err, ErrNotOurs) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if found := ran.find(ctx, ran.id); found.State != Running {
		t.Errorf("the container is %+v", found)
	}
}

// TestRuntimeUnavailable kills containerd while a container runs.
func TestRuntimeUnavailable(t *testing.T) {
	t.Parallel()
	nodetest.Require(t)
	var r *Runtime
	c := nodetest.Start(t)
	r = runtimeAt(t, c, "agent")
	ran := start(t, r, podOf("log", "before", ";", "sleep"))
	ran.awaitLog("before")
	c.Kill(t)
	fresh, err := Dial(t.Context(), r.config)
	if err != nil {
		t.Fatalf("dial a runtime that is away: %v", err)
	}
	for _, one := range []*Runtime{r, fresh} {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		for name, call := range map[string]func() error{
			"Pods":       func() error { _, err := one.Pods(ctx); return err },
			"Version":    func() error { _, _, err := one.Version(ctx); return err },
			"Status":     func() error { _, err := one.Status(ctx); return err },
			"RunSandbox": func() error { _, err := one.RunSandbox(ctx, ran.pod, 1); return err },
			"Stop":       func() error { return one.StopContainer(ctx, ran.id, 0) },
			"Exec":       func() error { _, _, err := one.Exec(ctx, ran.id, []string{"/bin/tool"}, patience); return err },
			"Image":      func() error { _, err := one.EnsureImage(ctx, ran.pod, &ran.pod.Spec.Containers[0], nil); return err },
		} {
			if err := call(); err == nil || ctx.Err() != nil {
				t.Errorf("%s of a runtime that is away: %v", name, err)
			}
		}
		cancel()
	}
	c.Restart(t)
	// gRPC reconnects after a delay of up to a few seconds.
	eventually(t, "the runtime answers again", func(ctx context.Context) bool { _, err := r.Pods(ctx); return err == nil })
	if found := ran.find(t.Context(), ran.id); found.State != Running {
		t.Errorf("the container is %+v", found)
	}
	if name, version, err := fresh.Version(t.Context()); name != "containerd" || version == "" || err != nil {
		t.Errorf("version %q %q, %v", name, version, err)
	}
	if status, err := fresh.Status(t.Context()); !status.RuntimeReady || !status.NetworkReady || status.Message != "" || err != nil {
		t.Errorf("status %+v, %v", status, err)
	}
	if err := fresh.Close(); err != nil {
		t.Error(err)
	}
	ran.end(ran.id)
}
