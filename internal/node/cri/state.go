package cri

import (
	"errors"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

// Pod is a pod of this agent at the runtime.
type Pod struct {
	UID             types.UID
	Namespace, Name string
	Sandboxes       []Sandbox   // the newest first
	Containers      []Container // the newest first, including init containers
}

// Sandbox is the environment that the containers of a pod share.
type Sandbox struct {
	ID      string
	Attempt uint32
	// Ready is false if the sandbox has ended. Then a new sandbox is needed to start a container.
	Ready     bool
	CreatedAt time.Time
	// IPs are the addresses of the pod. They are empty if the pod has the host's network.
	IPs []string
	// OnRenew is the pod's annotation of that name when the sandbox was created.
	OnRenew string
}

// State is the state of a container.
type State int

// The states of a container, as in CRI.
const (
	Unknown State = iota
	Created
	Running
	Exited
)

// Container is one run of a container of a pod.
type Container struct {
	ID, SandboxID, Name string
	// Attempt counts the restarts of the container from 0.
	Attempt uint32
	State   State
	// Image is the name in the pod's spec. ImageID is the image that was found, as in a container's status.
	Image, ImageID                   string
	CreatedAt, StartedAt, FinishedAt time.Time
	// ExitCode, Reason and Message are set if the container has exited. Reason is the runtime's: Completed, Error,
	// OOMKilled, ContainerCannotRun...
	ExitCode        int32
	Reason, Message string
}

// ImageState is whether a container's image must be pulled.
type ImageState int

// The states of an image. With the pull policy Always, an image must be pulled even if it is present.
const (
	ImageMissing ImageState = iota // and the pull policy is Never
	ImageNeedsPull
	ImageUsable
)

// ContainerSpec is a container to create.
type ContainerSpec struct {
	Pod       *corev1.Pod
	SandboxID string
	Container *corev1.Container
	Attempt   uint32
	// ImageID is the result of EnsureImage.
	ImageID string
	// Env is the whole environment, except for variables that the image sets.
	Env    []corev1.EnvVar
	Mounts []Mount
}

// Mount is a directory or file of the host in a container.
type Mount struct {
	HostPath, ContainerPath string
	ReadOnly                bool
	// Propagation is the mount propagation of the pod's mount. nil means none.
	Propagation *corev1.MountPropagationMode
}

// Status is whether the runtime can run pods.
type Status struct {
	RuntimeReady, NetworkReady bool
	// Message is the runtime's text about what is not ready.
	Message string
}

// ErrNotOurs is the error of a call about a sandbox or container that this agent did not create.
var ErrNotOurs = errors.New("does not belong to this agent")

// ErrTimedOut is the error of a command that was ended because it exceeded its time limit.
var ErrTimedOut = errors.New("command exceeded its limit")

// ConfigError is the error of a pod that cannot run as it is specified. A retry fails until something changes. The
// kubelet's reason for it is CreateContainerConfigError.
type ConfigError struct {
	Message string
}

func (e *ConfigError) Error() string { return e.Message }

// The reasons of an ImageError, as in a container's status.
const (
	ErrImagePull      = "ErrImagePull"
	ErrImageNeverPull = "ErrImageNeverPull"
	InvalidImageName  = "InvalidImageName"
	ImageInspectError = "ImageInspectError"
)

// ImageError is the error of a container that has no image.
type ImageError struct {
	// Reason is one of the reasons above.
	Reason string
	// Message contains no credentials.
	Message string
}

func (e *ImageError) Error() string { return e.Message }
