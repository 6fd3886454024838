package pod

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"lanyard.dev/internal/node/cri"
)

const (
	errImagePull     = "ErrImagePull"
	imagePullBackOff = "ImagePullBackOff"
	// pullErrorPeriod is how long a failed pull is shown as ErrImagePull before it is shown as ImagePullBackOff.
	pullErrorPeriod = 2 * time.Second
	// imageCheckPeriod is how often the agent checks whether an image was imported while its pull is in the back-off.
	imageCheckPeriod = 3 * time.Second
)

// image is the state of the image of a container.
type image struct {
	id string
	// ready is set if the image has been ensured since the container was last started.
	ready    bool
	retry    retry
	failedAt time.Time
	failure  string // the error of a failed pull, until it is shown as ImagePullBackOff
}

func (w *worker) image(container string) *image {
	if w.images[container] == nil {
		w.images[container] = &image{}
	}
	return w.images[container]
}

// ensureImages pulls the images of the containers if needed. It continues after a failure, so that all failures are reported.
func (w *worker) ensureImages(ctx context.Context, s *situation, containers []*corev1.Container) bool {
	ok := true
	for _, c := range containers {
		ok = w.ensureImage(ctx, s, c) && ok
	}
	return ok
}

func (w *worker) ensureImage(ctx context.Context, s *situation, c *corev1.Container) bool {
	im := w.image(c.Name)
	if im.ready {
		return true
	}
	state, err := w.Runtime.ImageState(ctx, c)
	// An image may be imported while its pull is in the back-off.
	if im.retry.mustWait(s.now) && (err != nil || state != cri.ImageUsable) {
		w.wakeAt(earliest(im.retry.until, s.now.Add(imageCheckPeriod)))
		return false
	}
	pulls := err == nil && state == cri.ImageNeedsPull
	if pulls { // an image that is present does not wait for slow registries
		if !acquire(ctx, w.pulls) {
			return false
		}
		defer release(w.pulls)
	}
	if err == nil {
		err = w.pull(ctx, s, c, im, pulls)
	}
	if err != nil {
		if ctx.Err() == nil {
			w.pullFailed(s, c, im, err)
		}
		return false
	}
	im.ready, im.retry, im.failure = true, retry{}, ""
	delete(w.waiting, c.Name)
	return true
}

// pull ensures the image and records events. pulls reports whether that pulls from a registry.
func (w *worker) pull(ctx context.Context, s *situation, c *corev1.Container, im *image, pulls bool) (err error) {
	began := w.Clock.Now()
	if pulls {
		w.normalOf(s.pod, c.Name, reasonPulling, "Pulling image %q", c.Image)
	}
	im.id, err = w.Runtime.EnsureImage(ctx, s.pod, c, w.pullSecrets(ctx, s.pod, pulls))
	if pulls {
		w.metrics.done("pull_image", err)
	}
	if err != nil {
		return err
	}
	if pulls {
		w.normalOf(s.pod, c.Name, reasonPulled, "Successfully pulled image %q in %v", c.Image, w.Clock.Since(began).Round(time.Millisecond))
	} else {
		w.normalOf(s.pod, c.Name, reasonPulled, "Container image %q already present on machine and can be accessed by the pod", c.Image)
	}
	return nil
}

// pullSecrets returns the pod's pull secrets. It leaves out those that cannot be read, and records an event for them.
func (w *worker) pullSecrets(ctx context.Context, pod *corev1.Pod, pulls bool) []*corev1.Secret {
	if !pulls {
		return nil
	}
	var found []*corev1.Secret
	var lacking []string
	for _, ref := range pod.Spec.ImagePullSecrets {
		if ref.Name == "" {
			continue // the API accepts an empty name, with a warning
		}
		secret, err := w.Objects.Secret(ctx, pod.Namespace, ref.Name)
		if err != nil {
			lacking = append(lacking, ref.Name)
			continue
		}
		found = append(found, secret)
	}
	if len(lacking) > 0 {
		w.warning(pod, reasonPullSecrets,
			"Unable to retrieve some image pull secrets (%s); attempting to pull the image may not succeed.", strings.Join(lacking, ", "))
	}
	return found
}

func (w *worker) pullFailed(s *situation, c *corev1.Container, im *image, err error) {
	reason, message := errImagePull, err.Error()
	if known, ok := errors.AsType[*cri.ImageError](err); ok {
		reason, message = known.Reason, known.Message
	}
	im.failedAt = w.Clock.Now()
	im.retry.failed(im.failedAt, pullBackoff, w.jitter())
	im.failure = ""
	switch reason {
	case errImagePull:
		im.failure = message
		w.warningOf(s.pod, c.Name, reasonFailed, "Failed to pull image %q: %s", c.Image, message)
	case cri.ErrImageNeverPull:
		w.warningOf(s.pod, c.Name, reasonNeverPull, "%s", message)
	case cri.InvalidImageName, cri.ImageInspectError:
		w.warningOf(s.pod, c.Name, reasonInspectFailed, "%s", message)
	}
	w.warningOf(s.pod, c.Name, reasonFailed, "Error: %s", reason)
	w.waiting[c.Name] = corev1.ContainerStateWaiting{Reason: reason, Message: message}
	w.markStale()
}

// showPullBackOff changes the waiting state of containers with a failed pull to ImagePullBackOff.
func (w *worker) showPullBackOff(s *situation) {
	if s.willStartNothing() {
		return
	}
	for name, im := range w.images {
		if im.failure == "" || !im.retry.mustWait(s.now) {
			continue
		}
		if at := im.failedAt.Add(pullErrorPeriod); s.now.Before(at) {
			w.wakeAt(at)
			continue
		}
		c := containerOf(s.pod, name)
		if c == nil {
			continue
		}
		backOff := fmt.Sprintf("Back-off pulling image %q", c.Image)
		w.waiting[name] = corev1.ContainerStateWaiting{Reason: imagePullBackOff, Message: backOff + ": " + errImagePull + ": " + im.failure}
		im.failure = ""
		w.normalOf(s.pod, name, reasonBackOff, "%s", backOff)
		w.warningOf(s.pod, name, reasonFailed, "Error: %s", imagePullBackOff)
	}
}

// containersOf returns the containers of a pod, the init containers first.
func containersOf(pod *corev1.Pod) []*corev1.Container {
	var all []*corev1.Container
	for i := range pod.Spec.InitContainers {
		all = append(all, &pod.Spec.InitContainers[i])
	}
	for i := range pod.Spec.Containers {
		all = append(all, &pod.Spec.Containers[i])
	}
	return slices.Clip(all)
}

// acquire takes a slot. It returns false if ctx ends first.
func acquire(ctx context.Context, slots chan struct{}) bool {
	select {
	case slots <- struct{}{}:
		return ctx.Err() == nil || func() bool { <-slots; return false }()
	case <-ctx.Done():
		return false
	}
}

func release(slots chan struct{}) { <-slots }
