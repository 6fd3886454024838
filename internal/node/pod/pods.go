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

// Config is what the workers work with.
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

// Pods runs the pods of one node. Its methods may be called concurrently. Set, Remove and Renewed do not block.
type Pods struct {
	Config
	metrics *metrics
	status  *publisher
	relist  *relist
	synced  chan struct{}
	sync    sync.Once
	jitter  func() float64 // 0 to 1
	// pulls and starts bound how much is pulled and started at once.
	pulls, starts chan struct{}
	group         sync.WaitGroup

	// Run sets these before it starts a worker.
	files       *files
	runtimeName string

	mu      sync.Mutex
	running context.Context // nil before Run
	workers map[types.UID]*worker
}

// New returns the workers of a node without pods. It registers listeners with config.Objects and config.Volumes.
func New(config Config) *Pods {
	atOnce := max(2*runtime.NumCPU(), 4)
	p := &Pods{
		Config: config, metrics: newMetrics(), synced: make(chan struct{}), jitter: rand.Float64, workers: map[types.UID]*worker{},
		pulls: make(chan struct{}, atOnce), starts: make(chan struct{}, atOnce),
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

// Synced says that every pod the API has for this node has been Set. Only then is it known that what else is found on the
// machine belongs to pods that are gone.
func (p *Pods) Synced() { p.sync.Do(func() { close(p.synced) }) }

// Set takes a pod that is new or has changed. The caller must not change it afterwards.
func (p *Pods) Set(pod *corev1.Pod) {
	if !p.isMine(pod) {
		return
	}
	p.status.see(pod)
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, w := range p.workers {
		if w.uid != pod.UID && w.isNamed(pod.Namespace, pod.Name) {
			w.remove() // another has taken its name, so it is gone
		}
	}
	if w, ok := p.workers[pod.UID]; ok {
		w.set(pod)
		return
	}
	p.add(pod, false)
}

// isMine leaves out what is not a pod for this agent to run.
func (p *Pods) isMine(pod *corev1.Pod) bool {
	if podannotation.IsProcess(pod) || pod.Spec.NodeName != p.NodeName {
		return false
	}
	if pod.UID == "" || strings.ContainsAny(string(pod.UID), `/\`) || strings.HasPrefix(string(pod.UID), ".") {
		klog.ErrorS(nil, "Left a pod alone whose UID is none", "pod", klog.KObj(pod))
		return false
	}
	return true
}

// add makes a worker. p.mu is held.
func (p *Pods) add(pod *corev1.Pod, gone bool) {
	w := newWorker(p, pod, gone)
	p.workers[pod.UID] = w
	p.launch(w)
}

// Remove takes note that a pod's object is gone. What is left of it on the machine is ended at once.
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
			w.hurry()
		}
	}
}

// Find returns the pod of this name with the status that it has, or is to have, at the authority, and its sandbox, which is
// "" where none is ready; ok is false where there is no such pod. The pod must not be changed.
func (p *Pods) Find(namespace, name string) (found *corev1.Pod, sandboxID string, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, w := range p.workers {
		if pod, gone, held := w.look(); !gone && w.isNamed(namespace, name) {
			if s := (&situation{held: held}).live(); s != nil {
				sandboxID = s.ID
			}
			return withoutStrangers(p.status.latest(pod), &held), sandboxID, true
		}
	}
	return nil, "", false
}

// withoutStrangers returns the pod without the containers in its status that the runtime does not hold of this pod. The
// status is in part what the authority has, and who may write that must not choose whose logs and terminals are shown.
func withoutStrangers(pod *corev1.Pod, held *cri.Pod) *corev1.Pod {
	owns := func(id string) bool {
		_, bare, _ := strings.Cut(id, "://")
		return id == "" || slices.ContainsFunc(held.Containers, func(c cri.Container) bool { return c.ID == bare })
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

// observe hands what the runtime holds to the workers. What belongs to no pod is ended, once it is known which pods exist.
func (p *Pods) observe(held []cri.Pod) {
	byUID := make(map[types.UID]cri.Pod, len(held))
	for _, pod := range held {
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
			p.add(orphan(&pod), true)
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

// orphan stands for a pod of which only the runtime knows.
func orphan(held *cri.Pod) *corev1.Pod {
	return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: held.Namespace, Name: held.Name, UID: held.UID}}
}

// known returns the pods there are workers for.
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

// Runtime is what the workers need of the container runtime. Stopping and removing what is stopped or removed already
// succeeds.
type Runtime interface {
	// Pods returns everything the runtime holds of this agent.
	Pods(ctx context.Context) ([]cri.Pod, error)

	RunSandbox(ctx context.Context, pod *corev1.Pod, attempt uint32) (id string, err error)
	StopSandbox(ctx context.Context, id string) error
	RemoveSandbox(ctx context.Context, id string) error

	// EnsureImage makes the container's image present as its pull policy says. Its error may be a *cri.ImageError.
	EnsureImage(ctx context.Context, pod *corev1.Pod, container *corev1.Container, pullSecrets []*corev1.Secret) (imageID string, err error)
	// ImageState reports what EnsureImage would have to do. It asks no registry.
	ImageState(ctx context.Context, container *corev1.Container) (cri.ImageState, error)

	// CreateContainer makes a container. Its error may be a *cri.ConfigError.
	CreateContainer(ctx context.Context, spec cri.ContainerSpec) (id string, err error)
	StartContainer(ctx context.Context, id string) error
	// StopContainer returns once the container has ended.
	StopContainer(ctx context.Context, id string, grace time.Duration) error
	RemoveContainer(ctx context.Context, id string) error

	Signal(ctx context.Context, containerID string, signal syscall.Signal) error
	Exec(ctx context.Context, containerID string, command []string, timeout time.Duration) (exitCode int, output []byte, err error)
	Logs(ctx context.Context, containerID string, options *corev1.PodLogOptions, stdout, stderr io.Writer) error
	RemovePodLogs(namespace, name string, uid types.UID) error
	// LoggedPods returns the pods that have logs on this machine, by their names alone.
	LoggedPods() ([]cri.Pod, error)
}

// Volumes is what the workers need of the pods' volumes.
type Volumes interface {
	// SetUp makes the volumes and returns their paths by name. Once it has succeeded they are kept fresh until TearDown.
	SetUp(ctx context.Context, pod *corev1.Pod) (map[string]string, error)
	// TearDown removes the volumes; of a pod that has none, it does nothing.
	TearDown(ctx context.Context, uid types.UID) error
	// Existing returns the pods that have volumes on this machine.
	Existing() ([]types.UID, error)
	// OnRenew registers a function that is called when a token in a pod's volumes has been replaced.
	OnRenew(func(pod *corev1.Pod, volumes []string))
}

// Objects reads what the node's pods name. What does not exist is an apierrors.IsNotFound error.
type Objects interface {
	// Hold keeps what the pod names at hand until Release, so that a container can be started again while the authority is
	// away. It may be called again when the pod has changed.
	Hold(pod *corev1.Pod)
	Release(uid types.UID)
	Secret(ctx context.Context, namespace, name string) (*corev1.Secret, error)
	ConfigMap(ctx context.Context, namespace, name string) (*corev1.ConfigMap, error)
	// OnChange registers a function that is called when an object that a pod holds was created, changed or deleted.
	OnChange(func(namespace string, changed nodeaccess.Reference))
}

// API is what the workers write to the authority. An object that is gone, or was replaced by another of its name, is an
// apierrors.IsNotFound or IsConflict error.
type API interface {
	// PatchStatus applies a strategic merge patch to the pod's status and returns the pod as it is then.
	PatchStatus(ctx context.Context, namespace, name string, patch []byte) (*corev1.Pod, error)
	// Delete removes the object at once, if it still has this UID.
	Delete(ctx context.Context, namespace, name string, uid types.UID) error
}
