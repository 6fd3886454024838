//go:build linux

package node

import (
	"context"
	"net"
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/clock"

	"lanyard.dev/internal/node/cri"
)

// version is what the Node says of its agent: the Kubernetes whose pods it runs.
const version = "v1.37.2+lanyard"

// containerRuntime is what the Node's conditions depend on.
type containerRuntime interface {
	Version(ctx context.Context) (name, version string, err error)
	Status(ctx context.Context) (cri.Status, error)
}

// observer finds the status of the node.
type observer struct {
	runtime   containerRuntime
	system    corev1.NodeSystemInfo
	rootDir   string
	name      string
	addresses []net.IP
	port      int32
	maxPods   int
	clock     clock.PassiveClock
}

// status implements observe.
func (o *observer) status(ctx context.Context, was *corev1.NodeStatus) corev1.NodeStatus {
	status := *was.DeepCopy()
	status.NodeInfo = o.info(ctx, was)
	status.Addresses = o.nodeAddresses()
	status.DaemonEndpoints.KubeletEndpoint.Port = o.port
	m, err := readMachine(o.rootDir)
	if err == nil {
		status.Capacity = m.capacity(o.maxPods)
		status.Allocatable = status.Capacity.DeepCopy()
	}
	for _, condition := range append(pressures(&m, err), o.ready(ctx, err)) {
		status.Conditions = o.transition(status.Conditions, condition)
	}
	return status
}

func (o *observer) info(ctx context.Context, was *corev1.NodeStatus) corev1.NodeSystemInfo {
	info := o.system
	info.KubeletVersion = version
	info.ContainerRuntimeVersion = was.NodeInfo.ContainerRuntimeVersion
	if name, version, err := o.runtime.Version(ctx); err == nil {
		info.ContainerRuntimeVersion = name + "://" + version
	}
	return info
}

func (o *observer) nodeAddresses() []corev1.NodeAddress {
	var all []corev1.NodeAddress
	for _, ip := range o.addresses {
		all = append(all, corev1.NodeAddress{Type: corev1.NodeInternalIP, Address: ip.String()})
	}
	return append(all, corev1.NodeAddress{Type: corev1.NodeHostName, Address: o.name})
}

// ready says whether pods can be run here.
func (o *observer) ready(ctx context.Context, machine error) corev1.NodeCondition {
	not := func(message string) corev1.NodeCondition {
		return corev1.NodeCondition{Type: corev1.NodeReady, Status: corev1.ConditionFalse, Reason: "KubeletNotReady", Message: message}
	}
	status, err := o.runtime.Status(ctx)
	switch {
	case err != nil:
		return not("container runtime is down: " + err.Error())
	case !status.RuntimeReady:
		return not("container runtime not ready: " + status.Message)
	case !status.NetworkReady:
		return not("container runtime network not ready: " + status.Message)
	case machine != nil:
		return not("cannot look at this machine: " + machine.Error())
	}
	return corev1.NodeCondition{Type: corev1.NodeReady, Status: corev1.ConditionTrue, Reason: "KubeletReady", Message: "the agent is ready to run pods"}
}

// pressures says what the machine is short of. Nothing is evicted for it.
func pressures(m *machine, err error) []corev1.NodeCondition {
	condition := func(kind corev1.NodeConditionType, low bool, what string) corev1.NodeCondition {
		c := corev1.NodeCondition{Type: kind, Status: corev1.ConditionFalse, Reason: "KubeletHasSufficient" + what, Message: "the node has enough of it"}
		switch {
		case err != nil:
			c.Status, c.Reason, c.Message = corev1.ConditionUnknown, "KubeletCannotTell", err.Error()
		case low:
			c.Status, c.Reason, c.Message = corev1.ConditionTrue, "KubeletHasInsufficient"+what, "the node is short of it"
		}
		return c
	}
	return []corev1.NodeCondition{
		condition(corev1.NodeMemoryPressure, m.lowOnMemory(), "Memory"),
		condition(corev1.NodeDiskPressure, m.lowOnDisk(), "Disk"),
		condition(corev1.NodePIDPressure, m.lowOnProcesses(), "PID"),
	}
}

// transition replaces the condition of that type, and keeps since when it has been what it is.
func (o *observer) transition(all []corev1.NodeCondition, c corev1.NodeCondition) []corev1.NodeCondition {
	now := metav1.NewTime(o.clock.Now())
	c.LastHeartbeatTime, c.LastTransitionTime = now, now
	i := slices.IndexFunc(all, func(old corev1.NodeCondition) bool { return old.Type == c.Type })
	if i < 0 {
		return append(all, c)
	}
	if all[i].Status == c.Status {
		c.LastTransitionTime = all[i].LastTransitionTime
	}
	all[i] = c
	return all
}
