package server

import (
	"fmt"
	"net/http"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// View returns a pod with its current status, and the ID of its sandbox, which is "" if no sandbox is ready. ok is false if
// there is no such pod. A View implements Pods with the errors of a kubelet.
type View func(namespace, name string) (pod *corev1.Pod, sandbox string, ok bool)

var _ Pods = View(nil)

// LogContainer implements Pods.
func (v View) LogContainer(namespace, name, container string, previous bool) (string, error) {
	pod, _, ok := v(namespace, name)
	if !ok {
		return "", notFound("pod %q does not exist", name)
	}
	status, ok := statusOf(pod, container)
	if !ok {
		return "", notStarted(pod, container)
	}
	id, problem := logContainerOf(status, previous)
	if problem != "" {
		return "", apierrors.NewBadRequest(fmt.Sprintf(problem, container, name))
	}
	return bareID(id), nil
}

// logContainerOf returns the ID of the container whose logs are to be served. If there is none, problem is a format with two
// verbs, for the names of container and pod.
func logContainerOf(s *corev1.ContainerStatus, previous bool) (id, problem string) {
	last := ""
	if t := s.LastTerminationState.Terminated; t != nil {
		last = t.ContainerID
	}
	switch {
	case previous && last == "":
		return "", "previous terminated container %q in pod %q not found"
	case previous:
		return last, ""
	case s.State.Running != nil:
		return s.ContainerID, ""
	case s.State.Terminated != nil && s.State.Terminated.ContainerID != "":
		return s.State.Terminated.ContainerID, ""
	case last != "":
		return last, ""
	case s.State.Terminated != nil || s.LastTerminationState.Terminated != nil:
		return "", "container %q in pod %q is terminated"
	case s.State.Waiting != nil:
		return "", waiting(s.State.Waiting.Reason)
	}
	return "", "container %q in pod %q is waiting to start - no logs yet"
}

func waiting(reason string) string {
	switch reason {
	case "ErrImagePull":
		reason = "image can't be pulled"
	case "ImagePullBackOff":
		reason = "trying and failing to pull image"
	}
	return "container %q in pod %q is waiting to start: " + strings.ReplaceAll(reason, "%", "%%")
}

// RunningContainer implements Pods.
func (v View) RunningContainer(namespace, name, container string) (string, error) {
	pod, _, ok := v(namespace, name)
	if !ok {
		return "", notFound("pod does not exist")
	}
	status, ok := statusOf(pod, container)
	switch {
	case ok && status.State.Running != nil:
		return bareID(status.ContainerID), nil
	case ok && status.State.Terminated != nil:
		return "", apierrors.NewBadRequest(fmt.Sprintf("container %q in pod %q is terminated", container, name))
	}
	return "", notFound("container not found (%q)", container)
}

// Sandbox implements Pods.
func (v View) Sandbox(namespace, name string) (string, error) {
	_, sandbox, ok := v(namespace, name)
	if !ok {
		return "", notFound("pod does not exist")
	}
	if sandbox == "" {
		return "", apierrors.NewBadRequest(fmt.Sprintf("pod %q is not running", name))
	}
	return sandbox, nil
}

func statusOf(pod *corev1.Pod, container string) (*corev1.ContainerStatus, bool) {
	for _, all := range [][]corev1.ContainerStatus{
		pod.Status.ContainerStatuses, pod.Status.InitContainerStatuses, pod.Status.EphemeralContainerStatuses,
	} {
		for i := range all {
			if all[i].Name == container {
				return &all[i], true
			}
		}
	}
	return nil, false
}

// notStarted returns the error for a container without a status: either the container has not been started yet, or the pod has
// no such container.
func notStarted(pod *corev1.Pod, container string) error {
	for _, all := range [][]corev1.Container{pod.Spec.Containers, pod.Spec.InitContainers} {
		for i := range all {
			if all[i].Name == container {
				return apierrors.NewBadRequest(fmt.Sprintf("container %q in pod %q is not available", container, pod.Name))
			}
		}
	}
	return notFound("container %q not found in pod %q", container, pod.Name)
}

// bareID returns a container ID without the runtime's name, for instance ID for "containerd://ID".
func bareID(id string) string {
	if _, after, ok := strings.Cut(id, "://"); ok {
		return after
	}
	return id
}

func notFound(format string, args ...any) error {
	return &apierrors.StatusError{ErrStatus: metav1.Status{
		Status: metav1.StatusFailure, Code: http.StatusNotFound, Reason: metav1.StatusReasonNotFound, Message: fmt.Sprintf(format, args...),
	}}
}
