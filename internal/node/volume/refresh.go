//go:build linux

package volume

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	utilerrors "k8s.io/apimachinery/pkg/util/errors"
	"k8s.io/client-go/util/workqueue"
	"k8s.io/klog/v2"
	"k8s.io/utils/clock"

	"lanyard.dev/internal/files"
	"lanyard.dev/internal/nodeaccess"
	"lanyard.dev/internal/token"
	"lanyard.dev/internal/tokenvolume"
)

const (
	// refreshWorkers is the number of pods that are refreshed at the same time.
	refreshWorkers = 4
	// refreshTimeout bounds the refresh of one pod.
	refreshTimeout = time.Minute
)

// jittered adds jitter to a rate limiter, so that pods that failed at the same time try again at different times.
type jittered struct {
	workqueue.TypedRateLimiter[types.UID]
}

func (s jittered) When(uid types.UID) time.Duration {
	wait := s.TypedRateLimiter.When(uid)
	return wait/2 + rand.N(wait/2+1)
}

func newQueue(clock clock.WithTicker) workqueue.TypedRateLimitingInterface[types.UID] {
	limiter := workqueue.NewTypedItemExponentialFailureRateLimiter[types.UID](time.Second, time.Minute)
	return workqueue.NewTypedRateLimitingQueueWithConfig(jittered{limiter}, workqueue.TypedRateLimitingQueueConfig[types.UID]{Clock: clock})
}

// Run renews tokens and updates the volumes of all pods until ctx ends. It may be called once.
func (v *Volumes) Run(ctx context.Context) {
	defer context.AfterFunc(ctx, v.queue.ShutDown)()
	defer v.queue.ShutDown()
	var all sync.WaitGroup
	defer all.Wait()
	all.Go(func() { v.tokens.Run(ctx) })
	for range refreshWorkers {
		all.Go(func() {
			for v.refreshNext(ctx) {
			}
		})
	}
}

func (v *Volumes) refreshNext(ctx context.Context) bool {
	uid, stopped := v.queue.Get()
	if stopped {
		return false
	}
	defer v.queue.Done(uid)
	err := v.refresh(ctx, uid)
	switch {
	case err == nil:
		v.queue.Forget(uid)
	case ctx.Err() != nil:
		return false
	// When a missing object is created, objectChanged queues the pod again.
	case !onlyMissing(err):
		v.queue.AddRateLimited(uid)
	}
	return true
}

// onlyMissing reports whether the error only means that objects do not exist.
func onlyMissing(err error) bool {
	var all utilerrors.Aggregate
	if errors.As(err, &all) {
		return !slices.ContainsFunc(all.Errors(), func(one error) bool { return !onlyMissing(one) })
	}
	return apierrors.IsNotFound(err)
}

// refresh updates all API-backed volumes of a pod.
func (v *Volumes) refresh(ctx context.Context, uid types.UID) error {
	v.mu.Lock()
	t := v.pods[uid]
	var pod *corev1.Pod
	if t != nil {
		pod = t.pod
	}
	v.mu.Unlock()
	if t == nil {
		return nil
	}
	root, err := v.root()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, refreshTimeout)
	defer cancel()
	renewed, err := v.refreshAll(ctx, t, podAt(root, uid), pod)
	v.notifyRenewed(pod, renewed)
	return err
}

func (v *Volumes) refreshAll(ctx context.Context, t *tracked, dir podDir, pod *corev1.Pod) (renewed []string, err error) {
	t.writeMu.Lock()
	defer t.writeMu.Unlock()
	ctx, cancel := t.untilRemoved(ctx)
	defer cancel()
	var faults []error
	for i := range pod.Spec.Volumes {
		volume := &pod.Spec.Volumes[i]
		mountpoint := dir.volume(kindOf(volume), volume.Name)
		// SetUp mounts and fills new volumes.
		if !tokenvolume.IsAPIBacked(volume) || t.gone.Err() != nil || !isMounted(mountpoint) {
			continue
		}
		fresh, err := v.fill(ctx, mountpoint, pod, volume)
		if err != nil {
			faults = append(faults, fmt.Errorf("MountVolume.SetUp failed for volume %q : %w", volume.Name, err))
		}
		if fresh {
			renewed = append(renewed, volume.Name)
		}
	}
	err = utilerrors.NewAggregate(faults)
	if t.gone.Err() == nil && ctx.Err() == nil {
		v.reportFailure(t, pod, err)
	}
	return renewed, err
}

// fill writes the current content of the volume. renewed reports whether a token in the volume has been replaced. The caller
// holds the pod's writeMu.
func (v *Volumes) fill(ctx context.Context, dir string, pod *corev1.Pod, volume *corev1.Volume) (renewed bool, err error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return false, err
	}
	defer func() { _ = root.Close() }()
	old := map[string]string{}
	for _, source := range tokenvolume.TokenSources(volume) {
		name, text := readToken(root, source.Path)
		if text != "" {
			old[name] = text
			v.tokens.Adopt(pod, source, text)
		}
	}
	files, err := v.renderer.Render(ctx, pod, volume)
	if err != nil {
		return false, err
	}
	if err := tokenvolume.Write(root, files); err != nil {
		return false, err
	}
	for name, text := range old {
		renewed = renewed || string(files[name].Data) != text
	}
	return renewed, nil
}

// readToken returns the clean path and the content of a token's file. text is "" if there is no such file, or if its content
// cannot be a token.
func readToken(root *os.Root, name string) (clean, text string) {
	clean, err := tokenvolume.CleanPath(name)
	if err != nil {
		return "", ""
	}
	f, err := root.Open(path.Join("..data", clean))
	if err != nil {
		return clean, ""
	}
	defer func() { _ = f.Close() }()
	data, err := files.ReadAll(f, clean, token.MaxSize)
	if err != nil {
		return clean, ""
	}
	return clean, string(data)
}

// isFilled reports whether a volume has been written before. It follows no link out of the volume, because containers may
// have written there.
func isFilled(dir string) bool {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return false
	}
	defer func() { _ = root.Close() }()
	info, err := root.Stat("..data")
	return err == nil && info.IsDir()
}

// objectChanged queues the pods that name an object. No volume contains a service account, but tokens depend on it.
func (v *Volumes) objectChanged(namespace string, ref nodeaccess.Reference) {
	if ref.Kind == nodeaccess.ServiceAccount {
		v.tokens.AccountChanged(namespace, ref.Name)
		return
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	for uid, t := range v.pods {
		if t.pod.Namespace == namespace && t.references[ref] {
			v.queue.Add(uid)
		}
	}
}

func (v *Volumes) notifyRenewed(pod *corev1.Pod, volumes []string) {
	if len(volumes) == 0 {
		return
	}
	klog.V(2).InfoS("Token renewed", "pod", klog.KObj(pod), "volumes", volumes)
	v.mu.Lock()
	listeners := v.listeners
	v.mu.Unlock()
	for _, f := range listeners {
		f(pod, volumes)
	}
}

// reportFailure reports a failure, unless it is the same as the last one. The caller holds the pod's writeMu.
func (v *Volumes) reportFailure(t *tracked, pod *corev1.Pod, err error) {
	text := ""
	if err != nil {
		text = err.Error()
	}
	isNew := text != "" && text != t.failure
	t.failure = text
	if !isNew {
		return
	}
	klog.ErrorS(err, "Volumes not updated", "pod", klog.KObj(pod))
	if v.config.Failed != nil {
		v.config.Failed(pod, err)
	}
}

func (v *Volumes) tokenFailed(uid types.UID, err error) {
	if pod := v.podOf(uid); pod != nil && v.config.Failed != nil {
		v.config.Failed(pod, err)
	}
}

func (v *Volumes) tokenRefused(uid types.UID, why string) {
	if pod := v.podOf(uid); pod != nil && v.config.Refused != nil {
		v.config.Refused(pod, why)
	}
}

// podOf returns the pod as it was when its volumes were set up, nil if they are not.
func (v *Volumes) podOf(uid types.UID) *corev1.Pod {
	v.mu.Lock()
	defer v.mu.Unlock()
	if t := v.pods[uid]; t != nil {
		return t.pod
	}
	return nil
}
