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

// EnsureImage makes the container's image present, as its pull policy says, and returns what CreateContainer needs of it.
// Its error is an *ImageError, or that of the context.
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

// ImageState looks at what is present, and asks no registry. Its error is an *ImageError.
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

// localImage returns the container's image, and its ID where the runtime has it.
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

// parseImage completes a reference: docker.io and library/ where there is no registry, latest where there is no tag and no
// digest. The credentials are chosen for the very registry that is then asked.
func parseImage(text string) (reference.Named, error) {
	named, err := reference.ParseNormalizedNamed(strings.TrimSpace(text))
	if err != nil {
		return nil, err
	}
	return reference.TagNameOnly(named), nil
}

// pullPolicy is the container's; without one it is that of the API's default.
func pullPolicy(container *corev1.Container, image reference.Named) corev1.PullPolicy {
	if container.ImagePullPolicy != "" {
		return container.ImagePullPolicy
	}
	if tagged, ok := image.(reference.Tagged); ok && tagged.Tag() == "latest" {
		return corev1.PullAlways
	}
	return corev1.PullIfNotPresent
}

// imageStatus returns nil for an image that the runtime does not have.
func (r *Runtime) imageStatus(ctx context.Context, image string) (*runtimeapi.Image, error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	ctx, _, images, err := r.connected(ctx)
	if err != nil {
		return nil, err
	}
	answer, err := images.ImageStatus(ctx, &runtimeapi.ImageSpec{Image: image}, false)
	if err != nil {
		return nil, said(err)
	}
	return answer.GetImage(), nil
}

// imageUser is whom an image runs as: a number, or a name that only the image can tell the number of.
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

// pulls makes one pull of those that ask at the same time for the same image with the same credentials. With others it
// is another: who has no right to an image does not get it by asking while somebody else does.
type pulls struct {
	mu      sync.Mutex
	running map[string]*pull
}

type pull struct {
	waiters int
	cancel  context.CancelFunc
	done    chan struct{} // closed when id and err are set
	id      string
	err     error
}

// do returns the result of fetch, which runs until it ends or nobody waits for it any more.
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
		p.forget(key, one) // who comes now starts anew
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

// pull fetches an image with the first of the credentials that the registry takes; without any, anonymously.
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
			return id, said(err)
		}
		var all []error
		for _, one := range logins {
			id, err := images.PullImage(ctx, &runtimeapi.ImageSpec{Image: image}, one.auth(), sandbox)
			if err == nil {
				return id, nil
			}
			all = append(all, redacted(said(err), one))
		}
		return "", joined(all)
	})
}

// joined is as errors.Join, on one line.
func joined(all []error) error {
	if len(all) == 1 {
		return all[0]
	}
	texts := make([]string, 0, len(all))
	for _, err := range all {
		texts = append(texts, err.Error())
	}
	return errors.New("[" + strings.Join(texts, ", ") + "]")
}

// redacted is the error's text without the login's secrets, in any form in which a URL or a header may have them. What
// it wraps is dropped, for that has the text too.
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
