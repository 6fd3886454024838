package pod

import (
	"context"
	"encoding/json"
	"math/rand/v2"
	"strconv"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/util/workqueue"
	"k8s.io/klog/v2"
	"k8s.io/utils/clock"
)

const (
	publishWorkers      = 4
	publishTimeout      = 10 * time.Second
	publishRetryMin     = 200 * time.Millisecond
	publishRetryMax     = 30 * time.Second
	finalPublishTimeout = 2 * time.Second
)

// publisher writes the pods' statuses to the authority. It writes only the newest status of each pod, and only if it differs
// from the authority's. It tries again until it succeeds. The workers do not wait for it.
type publisher struct {
	api     API
	queue   workqueue.TypedDelayingInterface[types.UID]
	backoff workqueue.TypedRateLimiter[types.UID]

	mu      sync.Mutex
	entries map[types.UID]*entry
}

// entry is the newest state of a pod at the authority, and the status that it is to have.
type entry struct {
	seen *corev1.Pod
	want *corev1.PodStatus
}

func newPublisher(api API, c clock.WithTicker) *publisher {
	return &publisher{
		api: api, entries: map[types.UID]*entry{},
		queue:   workqueue.NewTypedDelayingQueueWithConfig(workqueue.TypedDelayingQueueConfig[types.UID]{Clock: c}),
		backoff: workqueue.NewTypedItemExponentialFailureRateLimiter[types.UID](publishRetryMin, publishRetryMax),
	}
}

// run writes statuses until ctx ends.
func (p *publisher) run(ctx context.Context) {
	var group sync.WaitGroup
	for range publishWorkers {
		group.Go(func() {
			for p.next(ctx) {
			}
		})
	}
	<-ctx.Done()
	p.queue.ShutDown()
	group.Wait()
}

func (p *publisher) next(ctx context.Context) bool {
	uid, shutdown := p.queue.Get()
	if shutdown {
		return false
	}
	defer p.queue.Done(uid)
	if err := p.send(ctx, uid, publishTimeout); err != nil && ctx.Err() == nil {
		delay := p.backoff.When(uid)
		klog.V(2).InfoS("Pod status was not written", "uid", uid, "err", err, "again", delay)
		p.queue.AddAfter(uid, delay+rand.N(delay/5+1))
		return true
	}
	p.backoff.Forget(uid)
	return true
}

// observe records the state of a pod at the authority.
func (p *publisher) observe(pod *corev1.Pod) {
	p.mu.Lock()
	defer p.mu.Unlock()
	e, ok := p.entries[pod.UID]
	if !ok {
		e = &entry{}
		p.entries[pod.UID] = e
	}
	e.observe(pod)
}

func (e *entry) observe(pod *corev1.Pod) {
	if e.seen == nil || !isOlder(pod, e.seen) {
		e.seen = pod
	}
}

// isOlder reports whether a is an older state of the object than b. If the resource versions are no numbers, it returns false.
func isOlder(a, b *corev1.Pod) bool {
	va, errA := strconv.ParseUint(a.ResourceVersion, 10, 64)
	vb, errB := strconv.ParseUint(b.ResourceVersion, 10, 64)
	return errA == nil && errB == nil && va < vb
}

// set schedules the status to be written. It does nothing for a pod that was never observed, or was forgotten.
func (p *publisher) set(uid types.UID, status *corev1.PodStatus) {
	p.mu.Lock()
	e, ok := p.entries[uid]
	if ok {
		e.want = status
	}
	p.mu.Unlock()
	if ok {
		p.queue.Add(uid)
	}
}

// latest returns the pod with the status that was last set, which may not be written yet.
func (p *publisher) latest(pod *corev1.Pod) *corev1.Pod {
	_, want := p.entry(pod.UID)
	if want == nil {
		return pod
	}
	now := *pod
	now.Status = *want
	return &now
}

// writeFinal writes the status that was last set, before the object is deleted.
func (p *publisher) writeFinal(ctx context.Context, uid types.UID) error {
	return p.send(ctx, uid, finalPublishTimeout)
}

func (p *publisher) forget(uid types.UID) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.entries, uid)
	p.backoff.Forget(uid)
}

func (p *publisher) send(ctx context.Context, uid types.UID, timeout time.Duration) error {
	seen, want := p.entry(uid)
	if seen == nil || want == nil {
		return nil
	}
	patch, err := statusPatch(seen, want)
	if err != nil || patch == nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	now, err := p.api.PatchStatus(ctx, seen.Namespace, seen.Name, patch)
	if apierrors.IsNotFound(err) {
		return nil // the pod was deleted: Remove will be called
	}
	if err == nil && now.UID == uid {
		p.written(now)
	}
	return err
}

// written records the state of a pod after its status was written, unless the pod was forgotten meanwhile.
func (p *publisher) written(pod *corev1.Pod) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if e, ok := p.entries[pod.UID]; ok {
		e.observe(pod)
	}
}

func (p *publisher) entry(uid types.UID) (*corev1.Pod, *corev1.PodStatus) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if e, ok := p.entries[uid]; ok {
		return e.seen, e.want
	}
	return nil, nil
}

// statusPatch returns the patch that changes the pod's status to want, or nil if it is the same. The patch contains the pod's
// UID, so that the authority refuses it for another pod of the same name.
func statusPatch(seen *corev1.Pod, want *corev1.PodStatus) ([]byte, error) {
	before, err := json.Marshal(corev1.Pod{Status: seen.Status})
	if err != nil {
		return nil, err
	}
	same, err := json.Marshal(corev1.Pod{Status: *want})
	if err != nil {
		return nil, err
	}
	patch, err := strategicpatch.CreateTwoWayMergePatch(before, same, corev1.Pod{})
	if err != nil || string(patch) == "{}" {
		return nil, err
	}
	after, err := json.Marshal(corev1.Pod{ObjectMeta: metav1.ObjectMeta{UID: seen.UID}, Status: *want})
	if err != nil {
		return nil, err
	}
	return strategicpatch.CreateTwoWayMergePatch(before, after, corev1.Pod{})
}

// NewAPI returns an API that uses a client.
func NewAPI(client typedcorev1.PodsGetter) API { return apiClient{client} }

type apiClient struct{ client typedcorev1.PodsGetter }

func (r apiClient) PatchStatus(ctx context.Context, namespace, name string, patch []byte) (*corev1.Pod, error) {
	return r.client.Pods(namespace).Patch(ctx, name, types.StrategicMergePatchType, patch, metav1.PatchOptions{}, "status")
}

func (r apiClient) Delete(ctx context.Context, namespace, name string, uid types.UID) error {
	options := metav1.NewDeleteOptions(0)
	options.Preconditions = metav1.NewUIDPreconditions(string(uid))
	return r.client.Pods(namespace).Delete(ctx, name, *options)
}
