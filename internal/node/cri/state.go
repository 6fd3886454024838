package cri

import (
	"errors"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

// Pod is what the runtime holds of one pod of this agent.
type Pod struct {
	UID             types.UID
	Namespace, Name string
	Sandboxes       []Sandbox   // the newest first
	Containers      []Container // the newest first; of init containers too
}

// Sandbox is what the containers of a pod share.
type Sandbox struct {
	ID      string
	Attempt uint32
	// Ready is false once the sandbox has ended; then a new one is needed to start anything.
	Ready     bool
	CreatedAt time.Time
	// IPs are empty where the pod has the host's network.
	IPs []string
	// OnRenew is the pod's annotation of that name as it was when the sandbox was made.
	OnRenew string
}

// State is where a container is in its life.
type State int

// The states of a container, as CRI has them.
const (
	Unknown State = iota
	Created
	Running
	Exited
)

// Container is one run of a container of a pod.
type Container struct {
	ID, SandboxID, Name string
	// Attempt counts from 0 how often the container has been started anew.
	Attempt uint32
	State   State
	// Image is what the pod names; ImageID is what it was found to be, as in a container's status.
	Image, ImageID                   string
	CreatedAt, StartedAt, FinishedAt time.Time
	// ExitCode, Reason and Message are set when the container has exited. Reason is the runtime's: Completed, Error,
	// OOMKilled, ContainerCannotRun...
	ExitCode        int32
	Reason, Message string
}

// ImageState is what it takes to have a container's image.
type ImageState int

// The states of an image. A container with the pull policy Always needs its image pulled even if it is present.
const (
	ImageMissing ImageState = iota // and must not be pulled
	ImageNeedsPull
	ImageUsable
)

// ContainerSpec is a container to make.
type ContainerSpec struct {
	Pod       *corev1.Pod
	SandboxID string
	Container *corev1.Container
	Attempt   uint32
	// ImageID is what EnsureImage returned.
	ImageID string
	// Env is complete: nothing is added to it but what the image sets.
	Env    []corev1.EnvVar
	Mounts []Mount
}

// Mount is a directory or file of the host that a container sees.
type Mount struct {
	HostPath, ContainerPath string
	ReadOnly                bool
	// Propagation is the pod's; nil means none.
	Propagation *corev1.MountPropagationMode
}

// Status is whether pods can be run.
type Status struct {
	RuntimeReady, NetworkReady bool
	// Message says what is not ready, in the runtime's words.
	Message string
}

// ErrNotOurs is of a sandbox or container that another agent or program has made.
var ErrNotOurs = errors.New("does not belong to this agent")

// ErrTimedOut is of a command that was ended because it took too long.
var ErrTimedOut = errors.New("command exceeded its limit")

// ConfigError is of a pod that cannot be run as it is written; trying again does not help until something is changed.
// The kubelet calls it CreateContainerConfigError.
type ConfigError struct {
	Message string
}

func (e *ConfigError) Error() string { return e.Message }

// The reasons of an ImageError, as a container's status has them.
const (
	ErrImagePull      = "ErrImagePull"
	ErrImageNeverPull = "ErrImageNeverPull"
	InvalidImageName  = "InvalidImageName"
	ImageInspectError = "ImageInspectError"
)

// ImageError is why a container has no image.
type ImageError struct {
	// Reason is one of those above.
	Reason string
	// Message holds no credential.
	Message string
}

func (e *ImageError) Error() string { return e.Message }
