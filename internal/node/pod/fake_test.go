package pod

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"syscall"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/clock"

	"lanyard.dev/internal/node/cri"
	"lanyard.dev/internal/podannotation"
)

var errAway = errors.New("connection refused")

// journal records actions in order.
type journal struct {
	mu    sync.Mutex
	lines []string
}

func (j *journal) add(format string, args ...any) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.lines = append(j.lines, fmt.Sprintf(format, args...))
}

func (j *journal) all() []string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return slices.Clone(j.lines)
}

func (j *journal) count(line string) int {
	n := 0
	for _, l := range j.all() {
		if l == line {
			n++
		}
	}
	return n
}

func (j *journal) index(line string) int { return slices.Index(j.all(), line) }

// program is the behaviour of a container.
type program struct {
	runs       time.Duration // 0 means until it is stopped
	code       int32
	reason     string
	ignoresEnd bool   // does not end on SIGTERM
	message    string // its termination message
	logs       string
}

// fakeRuntime runs containers that behave like their programs, in the time of a fake clock.
type fakeRuntime struct {
	*journal
	clock clock.WithTicker

	mu       sync.Mutex
	next     int
	pods     map[types.UID]*cri.Pod
	programs map[string]program // by container
	specs    map[string]cri.ContainerSpec
	absent   map[string]error // images that cannot be pulled
	failures map[string]error // by call
	signals  []string
	logged   []cri.Pod
	started  map[string][]time.Time
}

func newFakeRuntime(c clock.WithTicker, j *journal) *fakeRuntime {
	return &fakeRuntime{
		journal: j, clock: c, pods: map[types.UID]*cri.Pod{}, programs: map[string]program{}, specs: map[string]cri.ContainerSpec{},
		absent: map[string]error{}, failures: map[string]error{}, started: map[string][]time.Time{},
	}
}

func (r *fakeRuntime) change(f func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f()
}

// endPrograms ends the containers whose programs have run their time. r.mu is held.
func (r *fakeRuntime) endPrograms() {
	now := r.clock.Now()
	for _, pod := range r.pods {
		for i := range pod.Containers {
			c := &pod.Containers[i]
			p := r.programs[c.Name]
			if end := c.StartedAt.Add(p.runs); c.State == cri.Running && p.runs > 0 && !now.Before(end) {
				r.exit(c, end, p.code, p.reason)
			}
		}
	}
}

func (r *fakeRuntime) exit(c *cri.Container, at time.Time, code int32, reason string) {
	c.State, c.FinishedAt, c.ExitCode, c.Reason = cri.Exited, at, code, reason
}

func (r *fakeRuntime) Pods(context.Context) ([]cri.Pod, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.failures["Pods"]; err != nil {
		return nil, err
	}
	r.endPrograms()
	var all []cri.Pod
	for _, p := range r.pods {
		if len(p.Sandboxes)+len(p.Containers) > 0 {
			c := *p
			c.Sandboxes, c.Containers = slices.Clone(p.Sandboxes), slices.Clone(p.Containers)
			all = append(all, c)
		}
	}
	return all, nil
}

func (r *fakeRuntime) RunSandbox(_ context.Context, pod *corev1.Pod, attempt uint32) (string, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.failures["RunSandbox"]; err != nil {
		return "", err
	}
	r.next++
	id := fmt.Sprintf("sandbox%d", r.next)
	p, ok := r.pods[pod.UID]
	if !ok {
		p = &cri.Pod{UID: pod.UID, Namespace: pod.Namespace, Name: pod.Name}
		r.pods[pod.UID] = p
	}
	sandbox := cri.Sandbox{ID: id, Attempt: attempt, Ready: true, CreatedAt: r.clock.Now(), IPs: []string{fmt.Sprintf("10.0.0.%d", r.next)}, OnRenew: pod.Annotations[podannotation.OnRenew]}
	p.Sandboxes = append([]cri.Sandbox{sandbox}, p.Sandboxes...)
	r.add("run sandbox %d", attempt)
	return id, nil
}

func (r *fakeRuntime) StopSandbox(_ context.Context, id string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.add("stop sandbox")
	for _, p := range r.pods {
		for i := range p.Sandboxes {
			if p.Sandboxes[i].ID == id {
				p.Sandboxes[i].Ready = false
			}
		}
	}
	return nil
}

func (r *fakeRuntime) RemoveSandbox(_ context.Context, id string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.add("remove sandbox")
	for _, p := range r.pods {
		p.Sandboxes = slices.DeleteFunc(p.Sandboxes, func(s cri.Sandbox) bool { return s.ID == id })
		p.Containers = slices.DeleteFunc(p.Containers, func(c cri.Container) bool { return c.SandboxID == id })
	}
	return nil
}

func (r *fakeRuntime) ImageState(_ context.Context, c *corev1.Container) (cri.ImageState, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	absent := r.absent[c.Image] != nil
	switch {
	case c.ImagePullPolicy == corev1.PullAlways, absent && c.ImagePullPolicy != corev1.PullNever:
		return cri.ImageNeedsPull, nil
	case absent:
		return cri.ImageMissing, nil
	}
	return cri.ImageUsable, nil
}

func (r *fakeRuntime) EnsureImage(_ context.Context, _ *corev1.Pod, c *corev1.Container, _ []*corev1.Secret) (string, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.absent[c.Image]; err != nil {
		r.add("pull %s failed", c.Image)
		return "", err
	}
	return "id-of-" + c.Image, nil
}

func (r *fakeRuntime) CreateContainer(_ context.Context, spec cri.ContainerSpec) (string, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.failures["CreateContainer"]; err != nil {
		return "", err
	}
	r.next++
	id := fmt.Sprintf("container%d", r.next)
	p := r.pods[spec.Pod.UID]
	c := cri.Container{
		ID: id, SandboxID: spec.SandboxID, Name: spec.Container.Name, Attempt: spec.Attempt, State: cri.Created,
		Image: spec.Container.Image, ImageID: spec.ImageID, CreatedAt: r.clock.Now(),
	}
	p.Containers = append([]cri.Container{c}, p.Containers...)
	r.specs[id] = spec
	return id, nil
}

// find returns a container. r.mu is held.
func (r *fakeRuntime) find(id string) *cri.Container {
	for _, p := range r.pods {
		for i := range p.Containers {
			if p.Containers[i].ID == id {
				return &p.Containers[i]
			}
		}
	}
	return nil
}

func (r *fakeRuntime) StartContainer(_ context.Context, id string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	c := r.find(id)
	if err := r.failures["StartContainer"]; err != nil {
		r.exit(c, r.clock.Now(), 128, "StartError")
		return err
	}
	c.State, c.StartedAt = cri.Running, r.clock.Now()
	r.started[c.Name] = append(r.started[c.Name], c.StartedAt)
	r.add("start %s", c.Name)
	return r.writeMessage(c)
}

// writeMessage writes the termination message. It is read only after the container has ended.
func (r *fakeRuntime) writeMessage(c *cri.Container) error {
	spec, message := r.specs[c.ID], r.programs[c.Name].message
	for _, m := range spec.Mounts {
		if message != "" && m.ContainerPath == spec.Container.TerminationMessagePath {
			return writeFile(m.HostPath, message)
		}
	}
	return nil
}

func (r *fakeRuntime) StopContainer(ctx context.Context, id string, grace time.Duration) error {
	r.mu.Lock()
	c := r.find(id)
	if c == nil || c.State != cri.Running {
		r.mu.Unlock()
		return nil
	}
	name, stubborn := c.Name, r.programs[c.Name].ignoresEnd
	r.mu.Unlock()
	r.add("stop %s %v", name, grace)
	if stubborn {
		timer := r.clock.NewTimer(grace)
		defer timer.Stop()
		select {
		case <-timer.C():
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if c := r.find(id); c != nil && c.State == cri.Running {
		code := int32(143)
		if stubborn {
			code = 137
		}
		r.exit(c, r.clock.Now(), code, "Error")
		r.add("ended %s", name)
	}
	return nil
}

func (r *fakeRuntime) RemoveContainer(_ context.Context, id string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, p := range r.pods {
		p.Containers = slices.DeleteFunc(p.Containers, func(c cri.Container) bool {
			if c.ID == id {
				r.add("remove %s", c.Name)
			}
			return c.ID == id
		})
	}
	return nil
}

func (r *fakeRuntime) Signal(_ context.Context, id string, s syscall.Signal) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.signals = append(r.signals, fmt.Sprintf("%s %d", r.find(id).Name, int(s)))
	return r.failures["Signal"]
}

func (r *fakeRuntime) Exec(_ context.Context, id string, command []string, _ time.Duration) (int, []byte, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.signals = append(r.signals, fmt.Sprintf("%s %q", r.find(id).Name, command))
	return 0, nil, r.failures["Exec"]
}

func (r *fakeRuntime) Logs(_ context.Context, id string, _ *corev1.PodLogOptions, stdout, _ io.Writer) error {
	r.mu.Lock()
	text := r.programs[r.find(id).Name].logs
	r.mu.Unlock()
	_, err := io.WriteString(stdout, text)
	return err
}

func (r *fakeRuntime) RemovePodLogs(_, name string, _ types.UID) error {
	r.add("remove logs of %s", name)
	return nil
}

func (r *fakeRuntime) LoggedPods() ([]cri.Pod, error) { return r.logged, nil }

// kill ends the newest sandbox of a pod and its containers, as after a restart of the machine.
func (r *fakeRuntime) kill(uid types.UID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	p := r.pods[uid]
	p.Sandboxes[0].Ready = false
	for i := range p.Containers {
		if p.Containers[i].State == cri.Running {
			r.exit(&p.Containers[i], r.clock.Now(), 137, "Error")
		}
	}
}
