//go:build linux

package cri

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"sync"

	"github.com/distribution/reference"
	corev1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// EnsureImage pulls the container's image if its pull policy requires that, and returns its ID for CreateContainer. The error is
// an *ImageError or the error of the context.
func (r *Runtime) EnsureImage(ctx context.Context, pod *corev1.Pod, container *corev1.Container, pullSecrets []*corev1.Secret) (imageID string, err error) {
	image, present, err := r.localImage(ctx, container)
	if err != nil {
		return "", err
	}
	if present != "" && pullPolicy(container, image) != corev1.PullAlways {
		return present, nil
	}
	if pullPolicy(container, image) == corev1.PullNever {
		return "", &ImageError{Reason: ErrImageNeverPull, Message: fmt.Sprintf("Container image %q is not present with pull policy of Never", container.Image)}
	}
	logins, err := loginsFor(image, pullSecrets)
	if err != nil {
		return "", &ImageError{Reason: ErrImagePull, Message: err.Error()}
	}
	sandbox, err := r.sandboxConfig(ctx, pod, 0)
	if err != nil {
		return "", &ImageError{Reason: ErrImagePull, Message: err.Error()}
	}
	imageID, err = r.pull(ctx, image.String(), logins, sandbox)
	if err != nil && ctx.Err() == nil {
		err = &ImageError{Reason: ErrImagePull, Message: fmt.Sprintf("failed to pull image %q: %v", container.Image, err)}
	}
	return imageID, err
}

// ImageState returns whether the container's image must be pulled. It queries no registry. The error is an *ImageError.
func (r *Runtime) ImageState(ctx context.Context, container *corev1.Container) (ImageState, error) {
	image, present, err := r.localImage(ctx, container)
	if err != nil {
		return ImageMissing, err
	}
	switch policy := pullPolicy(container, image); {
	case policy == corev1.PullAlways, present == "" && policy != corev1.PullNever:
		return ImageNeedsPull, nil
	case present == "":
		return ImageMissing, nil
	}
	return ImageUsable, nil
}

// localImage returns the reference of the container's image, and the image's ID if the runtime has it.
func (r *Runtime) localImage(ctx context.Context, container *corev1.Container) (image reference.Named, id string, err error) {
	image, err = parseImage(container.Image)
	if err != nil {
		message := fmt.Sprintf("Failed to apply default image tag %q: couldn't parse image name %q: %v", container.Image, container.Image, err)
		return nil, "", &ImageError{Reason: InvalidImageName, Message: message}
	}
	found, err := r.imageStatus(ctx, image.String())
	if err != nil {
		return nil, "", &ImageError{Reason: ImageInspectError, Message: fmt.Sprintf("Failed to inspect image %q: %v", container.Image, err)}
	}
	return image, found.GetId(), nil
}

// parseImage completes a reference: with docker.io and library/ if it has no registry, and with latest if it has neither a
// tag nor a digest. The credentials are chosen for the registry of the completed reference.
func parseImage(text string) (reference.Named, error) {
	named, err := reference.ParseNormalizedNamed(strings.TrimSpace(text))
	if err != nil {
		return nil, err
	}
	return reference.TagNameOnly(named), nil
}

// pullPolicy returns the container's pull policy, or the API's default if it has none.
func pullPolicy(container *corev1.Container, image reference.Named) corev1.PullPolicy {
	if container.ImagePullPolicy != "" {
		return container.ImagePullPolicy
	}
	if tagged, ok := image.(reference.Tagged); ok && tagged.Tag() == "latest" {
		return corev1.PullAlways
	}
	return corev1.PullIfNotPresent
}

// imageStatus returns the status of an image, or nil if the runtime does not have it.
func (r *Runtime) imageStatus(ctx context.Context, image string) (*runtimeapi.Image, error) {
	ctx, cancel := context.WithTimeout(ctx, queryTimeout)
	defer cancel()
	ctx, _, images, err := r.connected(ctx)
	if err != nil {
		return nil, err
	}
	answer, err := images.ImageStatus(ctx, &runtimeapi.ImageSpec{Image: image}, false)
	if err != nil {
		return nil, runtimeText(err)
	}
	return answer.GetImage(), nil
}

// imageUser is the user of an image: a number, or a name whose number only the image knows.
type imageUser struct {
	uid  *int64
	name string
}

func (r *Runtime) userOf(ctx context.Context, image string) (imageUser, error) {
	found, err := r.imageStatus(ctx, image)
	if err != nil {
		return imageUser{}, fmt.Errorf("inspect image %q: %w", image, err)
	}
	if found == nil {
		return imageUser{}, fmt.Errorf("inspect image %q: it is not present", image)
	}
	if found.GetUid() != nil {
		uid := found.GetUid().GetValue()
		return imageUser{uid: &uid}, nil
	}
	if name := found.GetUsername(); name != "" {
		return imageUser{name: name}, nil
	}
	return imageUser{uid: new(int64)}, nil
}

// pulls shares a pull among callers that request the same image with the same credentials at the same time. Calls with
// other credentials do not share it, so that no pod gets an image without the right to pull it.
type pulls struct {
	mu      sync.Mutex
	running map[string]*pull
}

type pull struct {
	waiters int
	cancel  context.CancelFunc
	done    chan struct{} // closed after id and err are set
	id      string
	err     error
}

// do returns the result of fetch. fetch is canceled when no caller waits for it any more.
func (p *pulls) do(ctx context.Context, key string, fetch func(context.Context) (string, error)) (string, error) {
	p.mu.Lock()
	one := p.running[key]
	if one == nil {
		one = p.start(ctx, key, fetch)
	}
	one.waiters++
	p.mu.Unlock()
	select {
	case <-one.done:
		return one.id, one.err
	case <-ctx.Done():
		p.leave(key, one)
		return "", context.Cause(ctx)
	}
}

func (p *pulls) start(ctx context.Context, key string, fetch func(context.Context) (string, error)) *pull {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), pullTimeout)
	one := &pull{cancel: cancel, done: make(chan struct{})}
	if p.running == nil {
		p.running = map[string]*pull{}
	}
	p.running[key] = one
	go func() {
		defer cancel()
		one.id, one.err = fetch(ctx)
		p.forget(key, one)
		close(one.done)
	}()
	return one
}

func (p *pulls) leave(key string, one *pull) {
	p.mu.Lock()
	one.waiters--
	last := one.waiters == 0
	p.mu.Unlock()
	if last {
		p.forget(key, one) // a later caller starts a pull of its own
		one.cancel()
	}
}

func (p *pulls) forget(key string, one *pull) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.running[key] == one {
		delete(p.running, key)
	}
}

// pull pulls an image with the first credentials that the registry accepts, or anonymously if there are none.
func (r *Runtime) pull(ctx context.Context, image string, logins []login, sandbox *runtimeapi.PodSandboxConfig) (imageID string, err error) {
	key := image
	for _, one := range logins {
		key += "\x00" + one.username + "\x00" + one.password
	}
	return r.pulls.do(ctx, key, func(ctx context.Context) (string, error) {
		ctx, _, images, err := r.connected(ctx)
		if err != nil {
			return "", err
		}
		if len(logins) == 0 {
			id, err := images.PullImage(ctx, &runtimeapi.ImageSpec{Image: image}, nil, sandbox)
			return id, runtimeText(err)
		}
		var all []error
		for _, one := range logins {
			id, err := images.PullImage(ctx, &runtimeapi.ImageSpec{Image: image}, one.auth(), sandbox)
			if err == nil {
				return id, nil
			}
			all = append(all, redacted(runtimeText(err), one))
		}
		return "", joinOnOneLine(all)
	})
}

// joinOnOneLine is like errors.Join, with a text of one line.
func joinOnOneLine(all []error) error {
	if len(all) == 1 {
		return all[0]
	}
	texts := make([]string, 0, len(all))
	for _, err := range all {
		texts = append(texts, err.Error())
	}
	return errors.New("[" + strings.Join(texts, ", ") + "]")
}

// redacted returns an error with the text of err, without the secrets of the login in any form that a URL or a header may
// have. It does not wrap err, whose text contains them.
func redacted(err error, one login) error {
	text := err.Error()
	for _, secret := range []string{one.encoded(), one.password} {
		for _, form := range []string{secret, url.QueryEscape(secret), url.PathEscape(secret), url.UserPassword("", secret).String()[1:], fmt.Sprintf("%q", secret)} {
			if form != "" && form != `""` {
				text = strings.ReplaceAll(text, form, "[redacted]")
			}
		}
	}
	return errors.New(text)
}
