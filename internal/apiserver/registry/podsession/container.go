package podsession

import (
	"context"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/registry/rest"

	"lanyard.dev/internal/apiserver/nodeclient"
	"lanyard.dev/internal/podannotation"
)

// defaultContainerAnnotation names the container of a pod which is meant where none is named.
const defaultContainerAnnotation = "kubectl.kubernetes.io/default-container"

// Nodes connects to the agents of nodes.
type Nodes interface {
	// Connect returns the way to a node for as long as ctx lasts.
	Connect(ctx context.Context, node string) (*nodeclient.Connection, error)
}

// find returns the pod, unless it is one that nobody can look into.
func find(ctx context.Context, pods rest.Getter, name string) (*corev1.Pod, error) {
	found, err := pods.Get(ctx, name, &metav1.GetOptions{})
	if err != nil {
		return nil, err
	}
	pod, ok := found.(*corev1.Pod)
	if !ok {
		return nil, apierrors.NewInternalError(fmt.Errorf("unexpected object type: %T", found))
	}
	if podannotation.IsProcess(pod) {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("pod %s stands for a process that was started with lanyard exec: "+
			"no agent runs it, so it has neither logs nor a way in here; its output is where it was started", name))
	}
	return pod, nil
}

// chosen returns the container that is meant: the one named, else the pod's only or default one.
func chosen(pod *corev1.Pod, name string) (string, error) {
	all := containers(&pod.Spec)
	if name != "" {
		if !slices.Contains(all, name) {
			return "", apierrors.NewBadRequest(fmt.Sprintf("container %s is not valid for pod %s", name, pod.Name))
		}
		return name, nil
	}
	if len(pod.Spec.Containers) == 1 {
		return pod.Spec.Containers[0].Name, nil
	}
	if name = pod.Annotations[defaultContainerAnnotation]; slices.Contains(all, name) {
		return name, nil
	}
	return "", apierrors.NewBadRequest(fmt.Sprintf("a container name must be specified for pod %s, choose one of: %s", pod.Name, all))
}

func containers(spec *corev1.PodSpec) []string {
	var names []string
	for _, c := range spec.InitContainers {
		names = append(names, c.Name)
	}
	for _, c := range spec.Containers {
		names = append(names, c.Name)
	}
	for _, c := range spec.EphemeralContainers {
		names = append(names, c.Name)
	}
	return names
}
