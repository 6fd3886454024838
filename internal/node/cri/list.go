//go:build linux

package cri

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync"
	"syscall"
	"time"

	"k8s.io/apimachinery/pkg/types"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	kubelettypes "k8s.io/kubelet/pkg/types"

	"lanyard.dev/internal/podannotation"
)

// statusCache has the statuses of sandboxes and containers, which lists do not contain. A status does not change while the
// state in the list is the same.
type statusCache struct {
	mu         sync.Mutex // held while a list is made
	sandboxes  map[string]Sandbox
	containers map[string]Container
}

// Pods returns the pods of this agent at the runtime, in no order. It takes two calls, and one more for each sandbox and
// container whose status is not cached.
func (r *Runtime) Pods(ctx context.Context) ([]Pod, error) {
	r.cache.mu.Lock()
	defer r.cache.mu.Unlock()
	ctx, rpc, _, err := r.connected(ctx)
	if err != nil {
		return nil, err
	}
	sandboxes, err := rpc.ListPodSandbox(ctx, &runtimeapi.PodSandboxFilter{LabelSelector: r.selector()})
	if err != nil {
		return nil, fmt.Errorf("list sandboxes: %w", runtimeText(err))
	}
	containers, err := rpc.ListContainers(ctx, &runtimeapi.ContainerFilter{LabelSelector: r.selector()})
	if err != nil {
		return nil, fmt.Errorf("list containers: %w", runtimeText(err))
	}
	pods := podsByUID{}
	if err := r.addSandboxes(ctx, pods, sandboxes); err != nil {
		return nil, err
	}
	if err := r.addContainers(ctx, pods, containers); err != nil {
		return nil, err
	}
	r.owned.replace(r.cache.sandboxes, r.cache.containers)
	return pods.sorted(), nil
}

type podsByUID map[types.UID]*Pod

// of returns the pod that the labels name, and adds it if necessary.
func (p podsByUID) of(labels map[string]string) *Pod {
	uid := types.UID(kubelettypes.GetPodUID(labels))
	if p[uid] == nil {
		p[uid] = &Pod{UID: uid, Namespace: kubelettypes.GetPodNamespace(labels), Name: kubelettypes.GetPodName(labels)}
	}
	return p[uid]
}

// sorted returns the pods, with their newest sandboxes and containers first.
func (p podsByUID) sorted() []Pod {
	all := make([]Pod, 0, len(p))
	for _, pod := range p {
		slices.SortFunc(pod.Sandboxes, func(a, b Sandbox) int {
			return cmp.Or(b.CreatedAt.Compare(a.CreatedAt), cmp.Compare(b.Attempt, a.Attempt))
		})
		slices.SortFunc(pod.Containers, func(a, b Container) int {
			return cmp.Or(b.CreatedAt.Compare(a.CreatedAt), cmp.Compare(b.Attempt, a.Attempt))
		})
		all = append(all, *pod)
	}
	return all
}

func (r *Runtime) addSandboxes(ctx context.Context, pods podsByUID, listed []*runtimeapi.PodSandbox) error {
	known := make(map[string]Sandbox, len(listed))
	for _, item := range listed {
		if !r.isOurs(item.GetLabels()) {
			continue // the runtime ignored the filter
		}
		sandbox, err := r.sandbox(ctx, item)
		if isNotFound(err) {
			continue // it was removed after the list was made
		}
		if err != nil {
			return err
		}
		known[sandbox.ID] = sandbox
		pod := pods.of(item.GetLabels())
		pod.Sandboxes = append(pod.Sandboxes, sandbox)
	}
	r.cache.sandboxes = known
	return nil
}

func (r *Runtime) sandbox(ctx context.Context, item *runtimeapi.PodSandbox) (Sandbox, error) {
	ready := item.GetState() == runtimeapi.PodSandboxState_SANDBOX_READY
	if before, ok := r.cache.sandboxes[item.GetId()]; ok && before.Ready == ready {
		return before, nil
	}
	found := Sandbox{ID: item.GetId(), Attempt: item.GetMetadata().GetAttempt(), Ready: ready, CreatedAt: timeOf(item.GetCreatedAt()), OnRenew: item.GetAnnotations()[podannotation.OnRenew]}
	if !ready {
		return found, nil
	}
	answer, err := r.sandboxStatus(ctx, item.GetId(), false)
	if err != nil {
		return Sandbox{}, err
	}
	found.Ready = answer.GetStatus().GetState() == runtimeapi.PodSandboxState_SANDBOX_READY
	found.IPs = addresses(answer.GetStatus())
	return found, nil
}

func addresses(status *runtimeapi.PodSandboxStatus) []string {
	if isHostNetwork(status) || status.GetNetwork().GetIp() == "" {
		return nil
	}
	all := []string{status.GetNetwork().GetIp()}
	for _, more := range status.GetNetwork().GetAdditionalIps() {
		all = append(all, more.GetIp())
	}
	return all
}

func isHostNetwork(status *runtimeapi.PodSandboxStatus) bool {
	return status.GetLinux().GetNamespaces().GetOptions().GetNetwork() == runtimeapi.NamespaceMode_NODE
}

func (r *Runtime) addContainers(ctx context.Context, pods podsByUID, listed []*runtimeapi.Container) error {
	known := make(map[string]Container, len(listed))
	for _, item := range listed {
		if !r.isOurs(item.GetLabels()) {
			continue
		}
		container, err := r.container(ctx, item)
		if isNotFound(err) {
			continue
		}
		if err != nil {
			return err
		}
		known[container.ID] = container
		pod := pods.of(item.GetLabels())
		pod.Containers = append(pod.Containers, container)
	}
	r.cache.containers = known
	return nil
}

func (r *Runtime) container(ctx context.Context, item *runtimeapi.Container) (Container, error) {
	state := stateOf(item.GetState())
	if before, ok := r.cache.containers[item.GetId()]; ok && before.State == state && state != Unknown && settled(&before, time.Now()) {
		return before, nil
	}
	found := Container{
		ID: item.GetId(), SandboxID: item.GetPodSandboxId(), Name: kubelettypes.GetContainerName(item.GetLabels()),
		Attempt: item.GetMetadata().GetAttempt(), State: state, Image: imageOf(item), ImageID: item.GetImageRef(), CreatedAt: timeOf(item.GetCreatedAt()),
	}
	if state == Created {
		return found, nil
	}
	answer, err := r.containerStatus(ctx, item.GetId(), false)
	if err != nil {
		return Container{}, err
	}
	addStatus(&found, answer.GetStatus())
	return found, nil
}

// settleTime is the time after which a runtime knows whether the kernel's out-of-memory killer ended a process. The runtime is
// notified of this separately from the end of the process, and until then reports an ordinary end.
const settleTime = 3 * time.Second

// settled reports whether the runtime's report of a container's end is final.
func settled(c *Container, now time.Time) bool {
	killed := c.State == Exited && c.ExitCode == 128+int32(syscall.SIGKILL) && c.Reason != "OOMKilled"
	return !killed || now.Sub(c.FinishedAt) > settleTime
}

// addStatus adds the fields that only a status has. Its state may be newer than the state in the list.
func addStatus(container *Container, status *runtimeapi.ContainerStatus) {
	container.State = stateOf(status.GetState())
	container.StartedAt = timeOf(status.GetStartedAt())
	if ref := status.GetImageRef(); ref != "" {
		container.ImageID = ref
	}
	if container.State != Exited {
		return
	}
	container.FinishedAt = timeOf(status.GetFinishedAt())
	container.ExitCode, container.Reason, container.Message = status.GetExitCode(), status.GetReason(), status.GetMessage()
}

func imageOf(item *runtimeapi.Container) string {
	return cmp.Or(item.GetAnnotations()[imageAnnotation], item.GetImage().GetUserSpecifiedImage(), item.GetImage().GetImage())
}

func stateOf(state runtimeapi.ContainerState) State {
	switch state {
	case runtimeapi.ContainerState_CONTAINER_CREATED:
		return Created
	case runtimeapi.ContainerState_CONTAINER_RUNNING:
		return Running
	case runtimeapi.ContainerState_CONTAINER_EXITED:
		return Exited
	}
	return Unknown
}

// timeOf returns the time of CRI's nanoseconds, and the zero time for 0.
func timeOf(nanoseconds int64) time.Time {
	if nanoseconds == 0 {
		return time.Time{}
	}
	return time.Unix(0, nanoseconds)
}
