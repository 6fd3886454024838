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
	// showPullError is for how long a failed pull is shown as such, before it is shown as held back.
	showPullError = 2 * time.Second
	// imageLookPeriod is how often the runtime is asked for an image while its pull is held back.
	imageLookPeriod = 3 * time.Second
)

// image is how far the image of a container has come.
type image struct {
	id string
	// ready says that it was made sure of since the container was last started.
	ready    bool
	retry    retry
	failedAt time.Time
	failure  string // what a failed pull said, until it is shown as held back
}

func (w *worker) image(container string) *image {
	if w.images[container] == nil {
		w.images[container] = &image{}
	}
	return w.images[container]
}

// ensureImages makes the images of the containers present. It goes on after a failure, so that all are told of.
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
	// An image may be imported while its pull is held back.
	if im.retry.waits(s.now) && (err != nil || state != cri.ImageUsable) {
		w.later(earlier(im.retry.until, s.now.Add(imageLookPeriod)))
		return false
	}
	pulls := err == nil && state == cri.ImageNeedsPull
	if pulls { // what is there need not wait for registries that are slow
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

// pull has the image made sure of. pulls says whether that asks the registry.
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

// pullSecrets reads the secrets to pull with. Those that cannot be read are told of and left out.
func (w *worker) pullSecrets(ctx context.Context, pod *corev1.Pod, pulls bool) []*corev1.Secret {
	if !pulls {
		return nil
	}
	var found []*corev1.Secret
	var lacking []string
	for _, ref := range pod.Spec.ImagePullSecrets {
		if ref.Name == "" {
			continue // which the API accepts, with a Warning
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
	im.retry.failed(im.failedAt, pullPace, w.jitter())
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
	w.touched()
}

// agePulls shows pulls that have failed as held back.
func (w *worker) agePulls(s *situation) {
	if s.halting() {
		return
	}
	for name, im := range w.images {
		if im.failure == "" || !im.retry.waits(s.now) {
			continue
		}
		if at := im.failedAt.Add(showPullError); s.now.Before(at) {
			w.later(at)
			continue
		}
		c := containerOf(s.pod, name)
		if c == nil {
			continue
		}
		held := fmt.Sprintf("Back-off pulling image %q", c.Image)
		w.waiting[name] = corev1.ContainerStateWaiting{Reason: imagePullBackOff, Message: held + ": " + errImagePull + ": " + im.failure}
		im.failure = ""
		w.normalOf(s.pod, name, reasonBackOff, "%s", held)
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

// acquire takes one of a bounded number of places; it returns false when ctx ends first.
func acquire(ctx context.Context, places chan struct{}) bool {
	select {
	case places <- struct{}{}:
		return ctx.Err() == nil || func() bool { <-places; return false }()
	case <-ctx.Done():
		return false
	}
}

func release(places chan struct{}) { <-places }
