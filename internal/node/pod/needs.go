package pod

import (
	"context"
	"io"
	"syscall"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"lanyard.dev/internal/node/cri"
)

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
}

// Objects reads what the node's pods name. What does not exist is an apierrors.IsNotFound error.
type Objects interface {
	// Hold keeps what the pod names at hand until Release, so that a container can be started again while the authority is
	// away. It may be called again when the pod has changed.
	Hold(pod *corev1.Pod)
	Release(uid types.UID)
	Secret(ctx context.Context, namespace, name string) (*corev1.Secret, error)
	ConfigMap(ctx context.Context, namespace, name string) (*corev1.ConfigMap, error)
}

// API is what the workers write to the authority. An object that is gone, or was replaced by another of its name, is an
// apierrors.IsNotFound or IsConflict error.
type API interface {
	// PatchStatus applies a strategic merge patch to the pod's status and returns the pod as it is then.
	PatchStatus(ctx context.Context, namespace, name string, patch []byte) (*corev1.Pod, error)
	// Delete removes the object at once, if it still has this UID.
	Delete(ctx context.Context, namespace, name string, uid types.UID) error
}
