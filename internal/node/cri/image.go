//go:build linux

package cri

import (
	"context"
	"fmt"
	"strings"

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

// ImageState is what it takes to have a container's image.
type ImageState int

// The states of an image. A container with the pull policy Always needs its image pulled even if it is present.
const (
	ImageMissing ImageState = iota // and must not be pulled
	ImageNeedsPull
	ImageUsable
)

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
