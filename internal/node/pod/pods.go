package pod

import (
	"context"
	"io"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/record"
	compbasemetrics "k8s.io/component-base/metrics"
	"k8s.io/klog/v2"
	"k8s.io/utils/clock"

	"lanyard.dev/internal/node/cri"
	"lanyard.dev/internal/nodeaccess"
	"lanyard.dev/internal/podannotation"
)

// Config configures Pods.
type Config struct {
	Runtime Runtime

	Volumes  Volumes
	Objects  Objects
	API      API
	Recorder record.EventRecorder
	Clock    clock.WithTicker

	// Metrics, where not nil, is where the metrics are registered.
	Metrics compbasemetrics.KubeRegistry

	NodeName string
	HostIPs  []string
	// Allocatable are the node's resources. A container without a limit has these as its limits in the downward API.
	Allocatable corev1.ResourceList
	// ServiceEnv are the variables of the authority's service. Every container gets them, also without enableServiceLinks.
	ServiceEnv []corev1.EnvVar
	// Root is a directory for the pods' files: etc-hosts, termination logs.
	Root string

	// OnSandbox, where not nil, is called with up when a sandbox has started or is found running, and without before it is
	// stopped, or when it is found dead. If it returns an error for a running sandbox, it is called again later. It must not
	// block for long.
	OnSandbox func(pod *corev1.Pod, sandboxID string, up bool) error
}

// Pods runs the pods of one node. Its methods may be called concurrently. Set and Remove do not block.
type Pods struct {
	Config
	metrics *metrics
	status  *publisher
	relist  *relist
	synced  chan struct{}
	sync    sync.Once
	jitter  func() float64 // 0 to 1
	// pulls and starts bound the number of concurrent pulls and starts.
	pulls, starts chan struct{}
	group         sync.WaitGroup

	// Run sets these before it starts a worker.
	files       *podFiles
	runtimeName string

	mu      sync.Mutex
	running context.Context // nil before Run
	workers map[types.UID]*worker
}

// New returns the workers of a node without pods. It registers listeners with config.Objects and config.Volumes.
func New(config Config) *Pods {
	concurrency := max(2*runtime.NumCPU(), 4)
	p := &Pods{
		Config: config, metrics: newMetrics(), synced: make(chan struct{}), jitter: rand.Float64, workers: map[types.UID]*worker{},
		pulls: make(chan struct{}, concurrency), starts: make(chan struct{}, concurrency),
	}
	p.status = newPublisher(config.API, config.Clock)
	p.relist = newRelist(config.Runtime, config.Clock, p.observe, func(err error) { p.metrics.done("list", err) })
	if config.Metrics != nil {
		p.register(config.Metrics)
	}
	config.Objects.OnChange(p.objectChanged)
	config.Volumes.OnRenew(p.renewed)
	return p
}

// Run runs the pods until ctx ends. Their containers go on running then. runtimeName is the prefix of containers' IDs in a
// pod's status, for instance "containerd".
func (p *Pods) Run(ctx context.Context, runtimeName string) error {
	f, err := openFiles(p.Root)
	if err != nil {
		return err
	}
	defer f.close()
	p.files, p.runtimeName = f, runtimeName
	p.group.Go(func() { p.status.run(ctx) })
	p.group.Go(func() { p.relist.run(ctx) })
	p.group.Go(func() { p.recover(ctx) })
	p.mu.Lock()
	p.running = ctx
	for _, w := range p.workers {
		p.launch(w)
	}
	p.mu.Unlock()
	<-ctx.Done()
	p.mu.Lock()
	p.running = nil
	p.mu.Unlock()
	p.group.Wait()
	return nil
}

// launch starts a worker if the workers run. p.mu is held.
func (p *Pods) launch(w *worker) {
	if ctx := p.running; ctx != nil && ctx.Err() == nil {
		p.group.Go(func() {
			w.run(ctx)
			if ctx.Err() == nil {
				p.forget(w)
			}
		})
	}
}

func (p *Pods) forget(w *worker) {
	p.status.forget(w.uid)
	p.Objects.Release(w.uid)
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.workers, w.uid)
}

// Synced must be called when Set has been called for every pod of this node. Before that, Pods keeps the
// containers, volumes and files of pods that it does not know.
func (p *Pods) Synced() { p.sync.Do(func() { close(p.synced) }) }

// Set adds a new pod, or a new state of a pod. The caller must not change the pod afterwards.
func (p *Pods) Set(pod *corev1.Pod) {
	if !p.isMine(pod) {
		return
	}
	p.status.observe(pod)
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, w := range p.workers {
		if w.uid != pod.UID && w.isNamed(pod.Namespace, pod.Name) {
			w.remove() // a new pod has this name, so the old pod is gone
		}
	}
	if w, ok := p.workers[pod.UID]; ok {
		w.set(pod)
		return
	}
	p.add(pod, false)
}

// isMine reports whether the agent is to run the pod.
func (p *Pods) isMine(pod *corev1.Pod) bool {
	if podannotation.IsProcess(pod) || pod.Spec.NodeName != p.NodeName {
		return false
	}
	if pod.UID == "" || strings.ContainsAny(string(pod.UID), `/\`) || strings.HasPrefix(string(pod.UID), ".") {
		klog.ErrorS(nil, "Ignored a pod with an invalid UID", "pod", klog.KObj(pod))
		return false
	}
	return true
}

// add makes a worker for a pod. p.mu is held.
func (p *Pods) add(pod *corev1.Pod, gone bool) {
	w := newWorker(p, pod, gone)
	p.workers[pod.UID] = w
	p.launch(w)
}

// Remove must be called when a pod's object is gone. The pod's containers are stopped at once, without grace period.
func (p *Pods) Remove(namespace, name string, uid types.UID) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if w, ok := p.workers[uid]; ok && w.isNamed(namespace, name) {
		w.remove()
	}
}

// objectChanged wakes the workers of a namespace in which a Secret or ConfigMap was created, changed or deleted, so that
// they retry at once what failed without it.
func (p *Pods) objectChanged(namespace string, _ nodeaccess.Reference) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, w := range p.workers {
		if w.namespace == namespace {
			w.retryNow()
		}
	}
}

// Find returns the pod of this name with its current status, which may not have been written to the authority yet, and the ID
// of its sandbox, which is "" if no sandbox is ready. ok is false if there is no such pod. The caller must not change the pod.
func (p *Pods) Find(namespace, name string) (found *corev1.Pod, sandboxID string, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, w := range p.workers {
		if pod, gone, observed := w.snapshot(); !gone && w.isNamed(namespace, name) {
			if s := (&situation{observed: observed}).readySandbox(); s != nil {
				sandboxID = s.ID
			}
			return withOwnContainersOnly(p.status.latest(pod), &observed), sandboxID, true
		}
	}
	return nil, "", false
}

// withOwnContainersOnly returns a copy of the pod. It removes the IDs of containers from the status that do not belong to the
// pod in the runtime. Parts of the status come from the authority: permission to write a pod's status must not give access to
// the logs and terminals of other containers.
func withOwnContainersOnly(pod *corev1.Pod, observed *cri.Pod) *corev1.Pod {
	owns := func(id string) bool {
		_, bare, _ := strings.Cut(id, "://")
		return id == "" || slices.ContainsFunc(observed.Containers, func(c cri.Container) bool { return c.ID == bare })
	}
	known := *pod
	known.Status = *pod.Status.DeepCopy()
	for _, all := range [][]corev1.ContainerStatus{known.Status.InitContainerStatuses, known.Status.ContainerStatuses, known.Status.EphemeralContainerStatuses} {
		for i := range all {
			c := &all[i]
			if t := c.State.Terminated; !owns(c.ContainerID) || t != nil && !owns(t.ContainerID) {
				c.ContainerID, c.State = "", corev1.ContainerState{}
			}
			if t := c.LastTerminationState.Terminated; t != nil && !owns(t.ContainerID) {
				c.LastTerminationState = corev1.ContainerState{}
			}
		}
	}
	return &known
}

// observe passes the pods of the runtime to the workers. Once all existing pods are known, it adds workers that remove the
// pods that no longer exist.
func (p *Pods) observe(observed []cri.Pod) {
	byUID := make(map[types.UID]cri.Pod, len(observed))
	for _, pod := range observed {
		byUID[pod.UID] = pod
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for uid, w := range p.workers {
		w.observe(byUID[uid])
	}
	if !p.isSynced() {
		return
	}
	for uid, pod := range byUID {
		if _, ok := p.workers[uid]; !ok {
			p.add(podOf(&pod), true)
			p.workers[uid].observe(pod)
		}
	}
}

func (p *Pods) isSynced() bool {
	select {
	case <-p.synced:
		return true
	default:
		return false
	}
}

// podOf returns an object for a pod that only the runtime knows.
func podOf(observed *cri.Pod) *corev1.Pod {
	return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: observed.Namespace, Name: observed.Name, UID: observed.UID}}
}

// known returns the sorted UIDs of the pods that have a worker.
func (p *Pods) known() []types.UID {
	p.mu.Lock()
	defer p.mu.Unlock()
	var all []types.UID
	for uid := range p.workers {
		all = append(all, uid)
	}
	slices.Sort(all)
	return all
}

// Runtime is the container runtime. It is no error to stop or remove something that is stopped or removed already.
type Runtime interface {
	// Pods returns the sandboxes and containers of this agent, by pod.
	Pods(ctx context.Context) ([]cri.Pod, error)

	RunSandbox(ctx context.Context, pod *corev1.Pod, attempt uint32) (id string, err error)
	StopSandbox(ctx context.Context, id string) error
	RemoveSandbox(ctx context.Context, id string) error

	// EnsureImage pulls the container's image if its pull policy requires that. The error may be a *cri.ImageError.
	EnsureImage(ctx context.Context, pod *corev1.Pod, container *corev1.Container, pullSecrets []*corev1.Secret) (imageID string, err error)
	// ImageState reports what EnsureImage would do. It sends no request to a registry.
	ImageState(ctx context.Context, container *corev1.Container) (cri.ImageState, error)

	// CreateContainer creates a container. The error may be a *cri.ConfigError.
	CreateContainer(ctx context.Context, spec cri.ContainerSpec) (id string, err error)
	StartContainer(ctx context.Context, id string) error
	// StopContainer returns once the container has ended.
	StopContainer(ctx context.Context, id string, grace time.Duration) error
	RemoveContainer(ctx context.Context, id string) error

	Signal(ctx context.Context, containerID string, signal syscall.Signal) error
	Exec(ctx context.Context, containerID string, command []string, timeout time.Duration) (exitCode int, output []byte, err error)
	Logs(ctx context.Context, containerID string, options *corev1.PodLogOptions, stdout, stderr io.Writer) error
	RemovePodLogs(namespace, name string, uid types.UID) error
	// LoggedPods returns the namespaces, names and UIDs of the pods that have logs on this machine.
	LoggedPods() ([]cri.Pod, error)
}

// Volumes makes and removes the pods' volumes.
type Volumes interface {
	// SetUp makes the volumes and returns their paths by name. The volumes are kept up to date until TearDown.
	SetUp(ctx context.Context, pod *corev1.Pod) (map[string]string, error)
	// TearDown removes the volumes. If the pod has none, it does nothing.
	TearDown(ctx context.Context, uid types.UID) error
	// Existing returns the pods that have volumes on this machine.
	Existing() ([]types.UID, error)
	// OnRenew registers a function that is called when a token in a pod's volumes has been replaced.
	OnRenew(func(pod *corev1.Pod, volumes []string))
}

// Objects reads the objects that the node's pods name. If an object does not exist, the error is apierrors.IsNotFound.
type Objects interface {
	// Hold keeps the objects that the pod names in memory until Release, so that a container can be started again while the
	// authority cannot be reached. It may be called again when the pod has changed.
	Hold(pod *corev1.Pod)
	Release(uid types.UID)
	Secret(ctx context.Context, namespace, name string) (*corev1.Secret, error)
	ConfigMap(ctx context.Context, namespace, name string) (*corev1.ConfigMap, error)
	// OnChange registers a function that is called when an object that a pod holds was created, changed or deleted.
	OnChange(func(namespace string, changed nodeaccess.Reference))
}

// API writes to the authority. If the object is gone, or another object has its name, the error is apierrors.IsNotFound or
// IsConflict.
type API interface {
	// PatchStatus applies a strategic merge patch to the pod's status and returns the patched pod.
	PatchStatus(ctx context.Context, namespace, name string, patch []byte) (*corev1.Pod, error)
	// Delete deletes the object at once, without grace period, if it has this UID.
	Delete(ctx context.Context, namespace, name string, uid types.UID) error
}
