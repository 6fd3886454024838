package pod

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
	"k8s.io/apimachinery/pkg/util/wait"
	compbasemetrics "k8s.io/component-base/metrics"
	testingclock "k8s.io/utils/clock/testing"
	"k8s.io/utils/ptr"

	"lanyard.dev/internal/nodeaccess"
)

var t0 = time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)

func writeFile(path, text string) error { return os.WriteFile(path, []byte(text), 0o600) }

// fakeVolumes returns a path for each volume.
type fakeVolumes struct {
	*journal
	mu       sync.Mutex
	fail     error
	existing []types.UID
	onRenew  func(*corev1.Pod, []string)
}

func (v *fakeVolumes) OnRenew(f func(*corev1.Pod, []string)) { v.onRenew = f }

func (v *fakeVolumes) SetUp(_ context.Context, pod *corev1.Pod) (map[string]string, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.fail != nil {
		return nil, v.fail
	}
	v.add("set up volumes")
	paths := map[string]string{}
	for _, volume := range pod.Spec.Volumes {
		paths[volume.Name] = "/volumes/" + volume.Name
	}
	return paths, nil
}

func (v *fakeVolumes) TearDown(_ context.Context, uid types.UID) error {
	v.add("tear down %s", uid)
	return nil
}

func (v *fakeVolumes) Existing() ([]types.UID, error) { return v.existing, nil }

// fakeObjects are the objects at the authority.
type fakeObjects struct {
	mu         sync.Mutex
	secrets    map[string]*corev1.Secret
	configMaps map[string]*corev1.ConfigMap
	onChange   func(string, nodeaccess.Reference)
}

func (o *fakeObjects) Hold(*corev1.Pod)                              {}
func (o *fakeObjects) Release(types.UID)                             {}
func (o *fakeObjects) OnChange(f func(string, nodeaccess.Reference)) { o.onChange = f }

func (o *fakeObjects) Secret(_ context.Context, namespace, name string) (*corev1.Secret, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if s, ok := o.secrets[namespace+"/"+name]; ok {
		return s, nil
	}
	return nil, apierrors.NewNotFound(corev1.Resource("secrets"), name)
}

func (o *fakeObjects) ConfigMap(_ context.Context, namespace, name string) (*corev1.ConfigMap, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if c, ok := o.configMaps[namespace+"/"+name]; ok {
		return c, nil
	}
	return nil, apierrors.NewNotFound(corev1.Resource("configmaps"), name)
}

// fakeAPI keeps pods, and notifies its watcher of changes.
type fakeAPI struct {
	*journal
	mu      sync.Mutex
	pods    map[string]*corev1.Pod
	version int
	away    bool
	watcher *Pods
	patches int
}

func (a *fakeAPI) PatchStatus(_ context.Context, namespace, name string, patch []byte) (*corev1.Pod, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.away {
		return nil, errAway
	}
	pod, ok := a.pods[namespace+"/"+name]
	if !ok {
		return nil, apierrors.NewNotFound(corev1.Resource("pods"), name)
	}
	before, err := json.Marshal(pod)
	if err != nil {
		return nil, err
	}
	after, err := strategicpatch.StrategicMergePatch(before, patch, corev1.Pod{})
	if err != nil {
		return nil, err
	}
	next := &corev1.Pod{}
	if err := json.Unmarshal(after, next); err != nil {
		return nil, err
	}
	if next.UID != pod.UID {
		return nil, apierrors.NewConflict(corev1.Resource("pods"), name, fmt.Errorf("another UID"))
	}
	a.patches++
	a.store(next)
	return next, nil
}

// store stores the pod's next state and notifies the watcher. a.mu is held.
func (a *fakeAPI) store(pod *corev1.Pod) {
	a.version++
	pod.ResourceVersion = fmt.Sprint(a.version)
	a.pods[pod.Namespace+"/"+pod.Name] = pod
	a.watcher.Set(pod)
}

func (a *fakeAPI) Delete(_ context.Context, namespace, name string, uid types.UID) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.away {
		return errAway
	}
	pod, ok := a.pods[namespace+"/"+name]
	switch {
	case !ok:
		return apierrors.NewNotFound(corev1.Resource("pods"), name)
	case pod.UID != uid:
		return apierrors.NewConflict(corev1.Resource("pods"), name, fmt.Errorf("another UID"))
	}
	a.add("delete object")
	delete(a.pods, namespace+"/"+name)
	a.watcher.Remove(namespace, name, uid)
	return nil
}

func (a *fakeAPI) get(name string) *corev1.Pod {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.pods["default/"+name]
}

// edit changes a pod, as a user does.
func (a *fakeAPI) edit(name string, f func(*corev1.Pod)) {
	a.mu.Lock()
	defer a.mu.Unlock()
	pod := a.pods["default/"+name].DeepCopy()
	f(pod)
	a.store(pod)
}

// eventLog records events as TYPE REASON MESSAGE.
type eventLog struct {
	mu     sync.Mutex
	events []string
}

func (l *eventLog) Event(object runtime.Object, kind, reason, message string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	field := ""
	if ref := object.(*corev1.ObjectReference); ref.FieldPath != "" {
		field = ref.FieldPath + ": "
	}
	l.events = append(l.events, fmt.Sprintf("%s %s %s%s", kind, reason, field, message))
}

func (l *eventLog) Eventf(o runtime.Object, kind, reason, format string, args ...any) {
	l.Event(o, kind, reason, fmt.Sprintf(format, args...))
}

func (l *eventLog) AnnotatedEventf(o runtime.Object, _ map[string]string, kind, reason, format string, args ...any) {
	l.Eventf(o, kind, reason, format, args...)
}

func (l *eventLog) all() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.events)
}

func (l *eventLog) has(event string) bool {
	return slices.ContainsFunc(l.all(), func(e string) bool { return strings.Contains(e, event) })
}

// node has Pods whose dependencies are fakes.
type node struct {
	t       *testing.T
	clock   *testingclock.FakeClock
	journal *journal
	runtime *fakeRuntime
	volumes *fakeVolumes
	objects *fakeObjects
	api     *fakeAPI
	events  *eventLog
	metrics compbasemetrics.KubeRegistry
	root    string
	// refusals is how many of the next calls of OnSandbox return an error.
	refusals atomic.Int32
	pods     *Pods
	stop     func()
}

func newNode(t *testing.T) *node {
	t.Helper()
	j := &journal{}
	c := testingclock.NewFakeClock(t0)
	n := &node{
		t: t, clock: c, journal: j, runtime: newFakeRuntime(c, j), volumes: &fakeVolumes{journal: j},
		objects: &fakeObjects{secrets: map[string]*corev1.Secret{}, configMaps: map[string]*corev1.ConfigMap{}},
		api:     &fakeAPI{journal: j, pods: map[string]*corev1.Pod{}}, events: &eventLog{}, root: t.TempDir(), stop: func() {},
	}
	n.begin()
	n.pods.Synced()
	return n
}

// begin starts an agent, after ending the one before. The state of the fakes stays.
func (n *node) begin() {
	n.t.Helper()
	n.stop()
	n.metrics = compbasemetrics.NewKubeRegistry()
	n.pods = New(Config{
		Runtime: n.runtime, Volumes: n.volumes, Objects: n.objects, API: n.api, Recorder: n.events, Clock: n.clock, Metrics: n.metrics,
		NodeName: "node", HostIPs: []string{"192.0.2.1"}, Root: n.root,
		ServiceEnv: []corev1.EnvVar{{Name: "KUBERNETES_SERVICE_HOST", Value: "192.0.2.9"}},
		OnSandbox: func(_ *corev1.Pod, id string, up bool) error {
			n.journal.add("sandbox up %v", up)
			if up && n.refusals.Add(-1) >= 0 {
				return errAway
			}
			return nil
		},
	})
	n.pods.jitter = func() float64 { return 0 }
	n.api.mu.Lock()
	n.api.watcher = n.pods
	for _, pod := range n.api.pods {
		n.pods.Set(pod)
	}
	n.api.mu.Unlock()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- n.pods.Run(ctx, "containerd") }()
	var once sync.Once
	n.stop = func() {
		once.Do(func() {
			cancel()
			if err := <-done; err != nil {
				n.t.Error(err)
			}
		})
	}
	n.t.Cleanup(n.stop)
}

// apply creates a pod.
func (n *node) apply(pod *corev1.Pod) {
	n.api.mu.Lock()
	defer n.api.mu.Unlock()
	n.api.store(pod)
}

// delete sets the deletion timestamp of a pod, as the authority does.
func (n *node) delete(name string, grace int64) {
	n.api.edit(name, func(pod *corev1.Pod) {
		pod.DeletionTimestamp = ptr.To(metav1.NewTime(n.clock.Now().Add(time.Duration(grace) * time.Second).Truncate(time.Second)))
		pod.DeletionGracePeriodSeconds = &grace
	})
}

// await steps the clock until the condition holds.
func (n *node) await(what string, condition func() bool) {
	n.t.Helper()
	err := wait.PollUntilContextTimeout(n.t.Context(), time.Millisecond, 20*time.Second, true, func(context.Context) (bool, error) {
		if condition() {
			return true, nil
		}
		n.clock.Step(200 * time.Millisecond)
		return false, nil
	})
	if err != nil {
		status, _ := json.MarshalIndent(n.api.pods, "", " ")
		n.t.Fatalf("%s: did not happen\nevents:\n%s\njournal:\n%s\n%s", what,
			strings.Join(n.events.all(), "\n"), strings.Join(n.journal.all(), "\n"), status)
	}
}

// awaitPod steps the clock until the pod's status meets the condition, and returns the pod.
func (n *node) awaitPod(what, name string, condition func(*corev1.PodStatus) bool) *corev1.Pod {
	n.t.Helper()
	n.await(what, func() bool {
		pod := n.api.get(name)
		return pod != nil && condition(&pod.Status)
	})
	return n.api.get(name)
}

func isPhase(phase corev1.PodPhase) func(*corev1.PodStatus) bool {
	return func(s *corev1.PodStatus) bool { return s.Phase == phase }
}

func waitsFor(reason string) func(*corev1.PodStatus) bool {
	return func(s *corev1.PodStatus) bool {
		return len(s.ContainerStatuses) > 0 && s.ContainerStatuses[0].State.Waiting != nil && s.ContainerStatuses[0].State.Waiting.Reason == reason
	}
}

// isIdle reports whether nothing of any pod is left.
func (n *node) isIdle() bool {
	observed, err := n.runtime.Pods(context.Background())
	return err == nil && len(observed) == 0 && len(n.pods.known()) == 0
}

func aPod(change ...func(*corev1.Pod)) *corev1.Pod {
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "web", UID: "uid-1", Generation: 1},
		Spec: corev1.PodSpec{
			NodeName: "node", RestartPolicy: corev1.RestartPolicyAlways, TerminationGracePeriodSeconds: ptr.To[int64](30),
			Containers: []corev1.Container{{Name: "main", Image: "app:1", TerminationMessagePath: "/dev/termination-log"}},
		},
		Status: corev1.PodStatus{Phase: corev1.PodPending, QOSClass: corev1.PodQOSBestEffort},
	}
	for _, f := range change {
		f(pod)
	}
	return pod
}
