package pod

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"lanyard.dev/internal/node/cri"
)

// statusInput is what a status contains beyond the situation.
type statusInput struct {
	// former is the status that was last published. Times of transitions are kept from it.
	former *corev1.PodStatus
	// waiting is, by container, why it could not be started.
	waiting map[string]corev1.ContainerStateWaiting
	// message returns the termination message of a run that has ended.
	message     func(*corev1.Container, *cri.Container) string
	runtimeName string // as in a container's ID: NAME://ID
	hostIPs     []string
}

// status returns the pod's new status. It does not change the fields that other components write.
func (s *situation) status(d *statusInput) corev1.PodStatus {
	status := *s.pod.Status.DeepCopy()
	status.ObservedGeneration = s.pod.Generation
	status.Phase = s.phase()
	status.Reason, status.Message = "", ""
	if s.failure != nil && status.Phase == corev1.PodFailed {
		status.Reason, status.Message = s.failure.Reason, s.failure.Message
	} else if ended(s.pod.Status.Phase) {
		status.Reason, status.Message = s.pod.Status.Reason, s.pod.Status.Message
	}
	s.setAddresses(&status, d.hostIPs)
	status.StartTime = &metav1.Time{Time: s.started}
	if s.failure == nil || len(s.observed.Containers) > 0 {
		status.InitContainerStatuses = s.containerStatuses(s.initContainers(), d)
		status.ContainerStatuses = s.containerStatuses(s.mainContainers(), d)
	}
	s.setConditions(&status, d.former)
	return status
}

// phase returns the pod's phase. It is Succeeded or Failed only when no container runs any more.
func (s *situation) phase() corev1.PodPhase {
	if len(s.running()) == 0 {
		if outcome := s.outcome(); outcome != "" {
			return outcome
		}
		if s.ending {
			return s.phaseWhenStopped()
		}
	}
	if s.haveAllStarted() {
		return corev1.PodRunning
	}
	return corev1.PodPending
}

func (s *situation) haveAllStarted() bool {
	for _, f := range s.mainContainers() {
		if f.last() == nil {
			return false
		}
	}
	return true
}

// phaseWhenStopped returns the phase of a pod that was deleted before its containers ended by themselves.
func (s *situation) phaseWhenStopped() corev1.PodPhase {
	for _, f := range s.mainContainers() {
		if f.last() == nil || f.last().ExitCode != 0 {
			return corev1.PodFailed
		}
	}
	return corev1.PodSucceeded
}

// setAddresses sets the addresses of the node and of the pod. It keeps the pod's addresses while the pod has no sandbox.
func (s *situation) setAddresses(status *corev1.PodStatus, hostIPs []string) {
	status.HostIP, status.HostIPs = "", nil
	for _, ip := range hostIPs {
		status.HostIPs = append(status.HostIPs, corev1.HostIP{IP: ip})
	}
	if len(hostIPs) > 0 {
		status.HostIP = hostIPs[0]
	}
	ips := s.podIPs(hostIPs)
	if len(ips) == 0 {
		return
	}
	status.PodIP, status.PodIPs = ips[0], nil
	for _, ip := range ips {
		status.PodIPs = append(status.PodIPs, corev1.PodIP{IP: ip})
	}
}

// withAddresses returns a copy of the pod whose status has the current addresses.
func (s *situation) withAddresses(hostIPs []string) *corev1.Pod {
	pod := *s.pod
	s.setAddresses(&pod.Status, hostIPs)
	return &pod
}

// podIPs returns the addresses of the ready sandbox.
func (s *situation) podIPs(hostIPs []string) []string {
	ready := s.readySandbox()
	switch {
	case ready == nil:
		return nil
	case s.pod.Spec.HostNetwork:
		return hostIPs
	}
	return ready.IPs
}

// willStartNothing reports whether no container of the pod will be started any more.
func (s *situation) willStartNothing() bool { return s.ending || s.outcome() != "" }

func (s *situation) containerStatuses(states []containerState, d *statusInput) []corev1.ContainerStatus {
	var all []corev1.ContainerStatus
	for i := range states {
		all = append(all, s.containerStatus(&states[i], d))
	}
	return all
}

func (s *situation) containerStatus(f *containerState, d *statusInput) corev1.ContainerStatus {
	status := corev1.ContainerStatus{Name: f.container.Name, Image: f.container.Image, Started: ptr.To(false)}
	last := f.last()
	if last == nil {
		status.State.Waiting = s.waiting(f, d)
		return status
	}
	status.RestartCount = int32(last.Attempt)
	status.Image, status.ImageID = last.Image, last.ImageID
	status.ContainerID = containerID(d.runtimeName, last)
	if maybeRunning(last) {
		status.State.Running = &corev1.ContainerStateRunning{StartedAt: metav1.NewTime(last.StartedAt)}
		status.Ready, status.Started = f.kind != initial, ptr.To(true)
	} else if reason := s.waiting(f, d); reason != nil {
		status.State.Waiting = reason
		status.LastTerminationState.Terminated = d.terminated(f.container, last)
		return status
	} else {
		status.State.Terminated = d.terminated(f.container, last)
		status.Ready = f.kind == initial && last.ExitCode == 0
	}
	status.LastTerminationState.Terminated = d.before(f)
	return status
}

// waiting returns the waiting state of a container that does not run, or nil if it has ended and is not in a back-off.
func (s *situation) waiting(f *containerState, d *statusInput) *corev1.ContainerStateWaiting {
	if reason, ok := d.waiting[f.container.Name]; ok && !s.willStartNothing() {
		return &reason
	}
	switch {
	case f.last() != nil && (s.willStartNothing() || !f.mustRestart || !s.now.Before(f.due)):
		return nil
	case f.last() != nil:
		return &corev1.ContainerStateWaiting{Reason: "CrashLoopBackOff", Message: fmt.Sprintf(
			"back-off %s restarting failed container=%s pod=%s", f.delay, f.container.Name, fullName(s.pod))}
	case len(s.pod.Spec.InitContainers) > 0:
		return &corev1.ContainerStateWaiting{Reason: "PodInitializing"}
	}
	return &corev1.ContainerStateWaiting{Reason: "ContainerCreating"}
}

// before returns how the run before the newest ended. If the runtime no longer has that run, it is taken from the former
// status.
func (d *statusInput) before(f *containerState) *corev1.ContainerStateTerminated {
	if len(f.runs) > 1 {
		return d.terminated(f.container, &f.runs[1])
	}
	for _, former := range append(d.former.InitContainerStatuses, d.former.ContainerStatuses...) {
		switch {
		case former.Name != f.container.Name:
		case strings.HasSuffix(former.ContainerID, "://"+f.last().ID):
			return former.LastTerminationState.Terminated
		case former.State.Terminated != nil:
			return former.State.Terminated
		default:
			return former.LastTerminationState.Terminated
		}
	}
	return nil
}

func (d *statusInput) terminated(c *corev1.Container, run *cri.Container) *corev1.ContainerStateTerminated {
	t := &corev1.ContainerStateTerminated{
		ExitCode: run.ExitCode, Reason: run.Reason, Message: run.Message,
		StartedAt: metav1.NewTime(run.StartedAt), FinishedAt: metav1.NewTime(run.FinishedAt),
		ContainerID: containerID(d.runtimeName, run),
	}
	if said := d.message(c, run); said != "" {
		t.Message = said
	}
	if t.Reason == "" {
		t.Reason = "Completed"
		if t.ExitCode != 0 {
			t.Reason = "Error"
		}
	}
	return t
}

func containerID(runtimeName string, run *cri.Container) string { return runtimeName + "://" + run.ID }

// fullName returns the name of a pod for messages, as the kubelet writes it.
func fullName(pod *corev1.Pod) string {
	return fmt.Sprintf("%s_%s(%s)", pod.Name, pod.Namespace, pod.UID)
}

// setConditions sets the conditions that the agent writes. The other fields of the status must be set already.
func (s *situation) setConditions(status, former *corev1.PodStatus) {
	ready := s.containersReady(status)
	for _, c := range []corev1.PodCondition{
		s.readyToStart(), s.initializedCondition(status), asType(corev1.PodReady, ready), asType(corev1.ContainersReady, ready),
		{Type: corev1.PodScheduled, Status: corev1.ConditionTrue},
	} {
		c.ObservedGeneration = s.pod.Generation
		s.setCondition(status, former, c)
	}
}

func asType(t corev1.PodConditionType, c corev1.PodCondition) corev1.PodCondition {
	c.Type = t
	return c
}

// setCondition sets a condition. It keeps the time of the last transition if the condition has the same status in former.
func (s *situation) setCondition(status, former *corev1.PodStatus, c corev1.PodCondition) {
	c.LastTransitionTime = metav1.NewTime(s.now)
	if i := findCondition(former, c.Type); i >= 0 && former.Conditions[i].Status == c.Status {
		c.LastTransitionTime = former.Conditions[i].LastTransitionTime
	}
	if i := findCondition(status, c.Type); i >= 0 {
		status.Conditions[i] = c
		return
	}
	status.Conditions = append(status.Conditions, c)
}

func findCondition(status *corev1.PodStatus, t corev1.PodConditionType) int {
	return slices.IndexFunc(status.Conditions, func(c corev1.PodCondition) bool { return c.Type == t })
}

func (s *situation) readyToStart() corev1.PodCondition {
	c := corev1.PodCondition{Type: corev1.PodReadyToStartContainers, Status: corev1.ConditionFalse}
	if s.readySandbox() != nil {
		c.Status = corev1.ConditionTrue
	}
	return c
}

func (s *situation) initializedCondition(status *corev1.PodStatus) corev1.PodCondition {
	c := corev1.PodCondition{Type: corev1.PodInitialized, Status: corev1.ConditionTrue}
	var incomplete []string
	for i, init := range s.pod.Spec.InitContainers {
		if i < len(status.InitContainerStatuses) && isInitialized(&init, &status.InitContainerStatuses[i]) {
			continue
		}
		incomplete = append(incomplete, init.Name)
	}
	switch {
	case status.Phase == corev1.PodSucceeded:
		c.Reason = "PodCompleted"
	case len(incomplete) > 0 && !anyStarted(status):
		c.Status, c.Reason = corev1.ConditionFalse, "ContainersNotInitialized"
		c.Message = fmt.Sprintf("containers with incomplete status: %s", incomplete)
	}
	return c
}

func isInitialized(c *corev1.Container, status *corev1.ContainerStatus) bool {
	if initKind(c) == sidecar {
		return *status.Started
	}
	return status.Ready
}

// anyStarted reports whether an ordinary container has ever run. From then on, the pod stays initialized.
func anyStarted(status *corev1.PodStatus) bool {
	return slices.ContainsFunc(status.ContainerStatuses, func(c corev1.ContainerStatus) bool { return c.ContainerID != "" })
}

func (s *situation) containersReady(status *corev1.PodStatus) corev1.PodCondition {
	c := corev1.PodCondition{Status: corev1.ConditionFalse}
	var unready []string
	for i, init := range status.InitContainerStatuses {
		if initKind(&s.pod.Spec.InitContainers[i]) == sidecar && !init.Ready {
			unready = append(unready, init.Name)
		}
	}
	for _, one := range status.ContainerStatuses {
		if !one.Ready {
			unready = append(unready, one.Name)
		}
	}
	switch {
	case status.Phase == corev1.PodSucceeded:
		c.Reason = "PodCompleted"
	case status.Phase == corev1.PodFailed:
		c.Reason = "PodFailed"
	case len(unready) > 0:
		c.Reason, c.Message = "ContainersNotReady", "containers with unready status: ["+strings.Join(unready, " ")+"]"
	default:
		c.Status = corev1.ConditionTrue
	}
	return c
}
