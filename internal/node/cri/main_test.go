//go:build linux

package cri

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"lanyard.dev/internal/node/nodetest"
)

// patience bounds each wait for an event that must happen.
const patience = time.Minute

const toolMain = "lanyard.dev/internal/node/nodetest/images/tool"

// shared has images with different users.
var shared = &nodetest.Shared{Images: []nodetest.Image{
	{Name: "lanyard.test/numeric:1", Main: toolMain, User: "1234:4321"},
	{Name: "lanyard.test/named:1", Main: toolMain, User: "somebody", Files: map[string]string{"/etc/passwd": "somebody:x:1500:1500::/:/bin/tool\n"}},
	{Name: "lanyard.test/env:1", Main: toolMain, Env: []string{"FROM=image", "KEPT=image"}, WorkingDir: "/tmp"},
}}

func TestMain(m *testing.M) { os.Exit(max(m.Run(), shared.End())) }

// newRuntime returns an agent of its own at the shared containerd.
func newRuntime(t testing.TB) *Runtime {
	t.Helper()
	return runtimeAt(t, shared.Containerd(t), "agent-"+uuid.NewString())
}

func runtimeAt(t testing.TB, c *nodetest.Containerd, agentID string) *Runtime {
	t.Helper()
	r, err := Dial(t.Context(), Config{Endpoint: c.Endpoint(), AgentID: agentID, LogDir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		removeAll(t, r)
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
	return r
}

// removeAll removes all pods of the agent, before the log directory of the test is removed.
func removeAll(t testing.TB, r *Runtime) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	pods, err := r.Pods(ctx)
	if err != nil {
		t.Errorf("list what is left: %v", err)
	}
	for _, pod := range pods {
		for _, sandbox := range pod.Sandboxes {
			if err := r.StopSandbox(ctx, sandbox.ID); err != nil {
				t.Error(err)
			}
			if err := r.RemoveSandbox(ctx, sandbox.ID); err != nil {
				t.Error(err)
			}
		}
	}
}

// podOf returns a pod with one container, in which the tool runs the steps.
func podOf(steps ...string) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "pod", UID: types.UID(uuid.NewString())},
		Spec: corev1.PodSpec{Containers: []corev1.Container{{
			Name: "main", Image: "lanyard.test/tool:1", Args: steps, ImagePullPolicy: corev1.PullIfNotPresent,
		}}},
	}
}

// started is a pod whose first container was started.
type started struct {
	t           testing.TB
	runtime     *Runtime
	pod         *corev1.Pod
	sandbox, id string
}

func create(t testing.TB, r *Runtime, pod *corev1.Pod, mounts ...Mount) (started, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	sandbox, err := r.RunSandbox(ctx, pod, 0)
	if err != nil {
		return started{}, err
	}
	made := started{t: t, runtime: r, pod: pod, sandbox: sandbox}
	made.id, err = made.add(ctx, 0, mounts...)
	return made, err
}

// add creates the pod's first container again.
func (s started) add(ctx context.Context, attempt uint32, mounts ...Mount) (id string, err error) {
	container := &s.pod.Spec.Containers[0]
	image, err := s.runtime.EnsureImage(ctx, s.pod, container, nil)
	if err != nil {
		return "", err
	}
	return s.runtime.CreateContainer(ctx, ContainerSpec{
		Pod: s.pod, SandboxID: s.sandbox, Container: container, Attempt: attempt, ImageID: image, Env: container.Env, Mounts: mounts,
	})
}

func start(t testing.TB, r *Runtime, pod *corev1.Pod, mounts ...Mount) started {
	t.Helper()
	made, err := create(t, r, pod, mounts...)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.StartContainer(t.Context(), made.id); err != nil {
		t.Fatal(err)
	}
	return made
}

// output runs a pod until it ends and returns its output.
func output(t testing.TB, r *Runtime, pod *corev1.Pod, mounts ...Mount) string {
	t.Helper()
	ran := start(t, r, pod, mounts...)
	ran.await(ran.id, Exited)
	return ran.logs(ran.id, &corev1.PodLogOptions{})
}

func (s started) logs(id string, options *corev1.PodLogOptions) string {
	s.t.Helper()
	var all bytes.Buffer
	if err := s.runtime.Logs(s.t.Context(), id, options, &all, &all); err != nil {
		s.t.Errorf("logs: %v", err)
	}
	return all.String()
}

// await waits until the container has the state.
func (s started) await(id string, state State) Container {
	s.t.Helper()
	var found Container
	eventually(s.t, fmt.Sprintf("container %s has state %d", id, state), func(ctx context.Context) bool {
		found = s.find(ctx, id)
		return found.State == state
	})
	return found
}

// find returns the container from the list.
func (s started) find(ctx context.Context, id string) Container {
	s.t.Helper()
	pods, err := s.runtime.Pods(ctx)
	if err != nil {
		s.t.Fatal(err)
	}
	for _, pod := range pods {
		for _, container := range pod.Containers {
			if container.ID == id {
				return container
			}
		}
	}
	s.t.Fatalf("container %s is not listed", id)
	return Container{}
}

// awaitLog waits until the container has written the text.
func (s started) awaitLog(text string) {
	s.t.Helper()
	eventually(s.t, "the log has "+text, func(context.Context) bool {
		log, err := os.ReadFile(s.runtime.LogPath(s.pod, s.pod.Spec.Containers[0].Name, 0))
		return err == nil && strings.Contains(string(log), text)
	})
}

// eventually calls done until it returns true. It is for events that cannot be watched.
func eventually(t testing.TB, what string, done func(context.Context) bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !done(ctx) {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("%s: not within %v", what, patience)
		}
	}
}

func writeFile(t testing.TB, dir, name, text string) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// unified reports whether this machine has cgroups of version 2.
func unified() bool {
	_, err := os.Stat("/sys/fs/cgroup/cgroup.controllers")
	return err == nil
}
