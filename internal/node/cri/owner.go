//go:build linux

package cri

import (
	"context"
	"fmt"
	"maps"
	"sync"

	corev1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	kubelettypes "k8s.io/kubelet/pkg/types"
)

const (
	// agentLabel is the label of sandboxes and containers whose value is the ID of their agent.
	agentLabel = "identity.lanyard.dev/agent"
	// imageAnnotation has the name of the image in the pod's spec.
	imageAnnotation = "identity.lanyard.dev/image"
)

// sandboxLabels returns the pod's labels and the labels of its identity, which a pod cannot override.
func (r *Runtime) sandboxLabels(pod *corev1.Pod) map[string]string {
	labels := maps.Clone(pod.Labels)
	if labels == nil {
		labels = map[string]string{}
	}
	maps.Copy(labels, r.identity(pod))
	return labels
}

func (r *Runtime) containerLabels(pod *corev1.Pod, container string) map[string]string {
	labels := r.identity(pod)
	labels[kubelettypes.KubernetesContainerNameLabel] = container
	return labels
}

func (r *Runtime) identity(pod *corev1.Pod) map[string]string {
	return map[string]string{
		kubelettypes.KubernetesPodNameLabel:      pod.Name,
		kubelettypes.KubernetesPodNamespaceLabel: pod.Namespace,
		kubelettypes.KubernetesPodUIDLabel:       string(pod.UID),
		agentLabel:                               r.config.AgentID,
	}
}

// selector matches the labels of this agent's sandboxes and containers.
func (r *Runtime) selector() map[string]string {
	return map[string]string{agentLabel: r.config.AgentID}
}

func (r *Runtime) isOurs(labels map[string]string) bool {
	return labels[agentLabel] == r.config.AgentID && labels[kubelettypes.KubernetesPodUIDLabel] != ""
}

// owned are the IDs of sandboxes and containers that were seen with the label of this agent.
type owned struct {
	mu         sync.Mutex
	sandboxes  map[string]uint32 // attempts
	containers map[string]bool
}

func (o *owned) addSandbox(id string, attempt uint32) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.sandboxes == nil {
		o.sandboxes = map[string]uint32{}
	}
	o.sandboxes[id] = attempt
}

func (o *owned) addContainer(id string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.containers == nil {
		o.containers = map[string]bool{}
	}
	o.containers[id] = true
}

func (o *owned) sandbox(id string) (attempt uint32, ok bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	attempt, ok = o.sandboxes[id]
	return attempt, ok
}

func (o *owned) container(id string) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.containers[id]
}

// replace sets the IDs. Sandboxes and containers that were created after the list was made are queried again.
func (o *owned) replace(sandboxes map[string]Sandbox, containers map[string]Container) {
	attempts, ids := make(map[string]uint32, len(sandboxes)), make(map[string]bool, len(containers))
	for id, sandbox := range sandboxes {
		attempts[id] = sandbox.Attempt
	}
	for id := range containers {
		ids[id] = true
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.sandboxes, o.containers = attempts, ids
}

// requireOwnSandbox returns the attempt of a sandbox, or an error if the sandbox is not this agent's. If it does not exist,
// the error is NotFound of the runtime.
func (r *Runtime) requireOwnSandbox(ctx context.Context, id string) (attempt uint32, err error) {
	if attempt, ok := r.owned.sandbox(id); ok {
		return attempt, nil
	}
	answer, err := r.sandboxStatus(ctx, id, false)
	if err != nil {
		return 0, err
	}
	if !r.isOurs(answer.GetStatus().GetLabels()) {
		return 0, fmt.Errorf("sandbox %s: %w", id, ErrNotOurs)
	}
	attempt = answer.GetStatus().GetMetadata().GetAttempt()
	r.owned.addSandbox(id, attempt)
	return attempt, nil
}

// requireOwnContainer returns an error if a container is not this agent's.
func (r *Runtime) requireOwnContainer(ctx context.Context, id string) error {
	if r.owned.container(id) {
		return nil
	}
	_, err := r.containerStatus(ctx, id, false)
	return err
}

func (r *Runtime) sandboxStatus(ctx context.Context, id string, verbose bool) (*runtimeapi.PodSandboxStatusResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, queryTimeout)
	defer cancel()
	ctx, rpc, _, err := r.connected(ctx)
	if err != nil {
		return nil, err
	}
	answer, err := rpc.PodSandboxStatus(ctx, id, verbose)
	if err != nil {
		return nil, fmt.Errorf("status of sandbox %s: %w", id, runtimeText(err))
	}
	return answer, nil
}

// containerStatus returns the status of a container of this agent.
func (r *Runtime) containerStatus(ctx context.Context, id string, verbose bool) (*runtimeapi.ContainerStatusResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, queryTimeout)
	defer cancel()
	ctx, rpc, _, err := r.connected(ctx)
	if err != nil {
		return nil, err
	}
	answer, err := rpc.ContainerStatus(ctx, id, verbose)
	if err != nil {
		return nil, fmt.Errorf("status of container %s: %w", id, runtimeText(err))
	}
	if !r.isOurs(answer.GetStatus().GetLabels()) {
		return nil, fmt.Errorf("container %s: %w", id, ErrNotOurs)
	}
	r.owned.addContainer(id)
	return answer, nil
}
