package cri

import "errors"

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
