package pod

import (
	"fmt"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"lanyard.dev/internal/apiserver/registry"
	"lanyard.dev/internal/podvalidation"
)

// none is the text of a wide cell without a value.
const none = "<none>"

// nodeLost is the status reason of a pod whose node has stopped reporting.
const nodeLost = "NodeLost"

// Columns are the columns of `kubectl get pods`. Those with priority 1 are shown with -o wide only.
var Columns = []metav1.TableColumnDefinition{
	{Name: "Name", Type: "string", Format: "name", Description: "Name of the pod, unique in its namespace."},
	{Name: "Ready", Type: "string", Description: "Number of ready containers, of all containers."},
	{Name: "Status", Type: "string", Description: "Phase of the pod, or the reason why its containers do not run."},
	{Name: "Restarts", Type: "string", Description: "How often containers of the pod restarted, and when one last did."},
	{Name: "Age", Type: "string", Description: "Time since the pod was created."},
	{Name: "IP", Type: "string", Priority: 1, Description: "Primary address of the pod."},
	{Name: "Node", Type: "string", Priority: 1, Description: "Node the pod is bound to."},
	{Name: "Nominated Node", Type: "string", Priority: 1, Description: "Node that is being prepared for the pod by preemption."},
	{Name: "Readiness Gates", Type: "string", Priority: 1, Description: "Number of readiness gates that are true, of all of them."},
}

// Row returns a cell for each of Columns, with the ages at the time now.
func Row(pod *corev1.Pod, now time.Time) []any {
	s := summarize(pod)
	return []any{
		pod.Name,
		fmt.Sprintf("%d/%d", s.ready, s.total),
		s.reason,
		s.restarts.text(now),
		registry.Age(pod.CreationTimestamp.Time, now),
		orNone(firstIP(&pod.Status)),
		orNone(pod.Spec.NodeName),
		orNone(pod.Status.NominatedNodeName),
		readinessGates(pod),
	}
}

func orNone(s string) string {
	if s == "" {
		return none
	}
	return s
}

func readinessGates(pod *corev1.Pod) string {
	gates := pod.Spec.ReadinessGates
	if len(gates) == 0 {
		return none
	}
	open := 0
	for _, gate := range gates {
		if conditionTrue(&pod.Status, gate.ConditionType) {
			open++
		}
	}
	return fmt.Sprintf("%d/%d", open, len(gates))
}

// conditionTrue reports whether the first condition of type t is true.
func conditionTrue(status *corev1.PodStatus, t corev1.PodConditionType) bool {
	for i := range status.Conditions {
		if status.Conditions[i].Type == t {
			return status.Conditions[i].Status == corev1.ConditionTrue
		}
	}
	return false
}

// tally counts restarts, and has the time of the latest end that was followed by a restart.
type tally struct {
	count int
	last  metav1.Time
}

func (t *tally) add(s *corev1.ContainerStatus) {
	t.count += int(s.RestartCount)
	if ended := s.LastTerminationState.Terminated; ended != nil && t.last.Before(&ended.FinishedAt) {
		t.last = ended.FinishedAt
	}
}

func (t *tally) text(now time.Time) string {
	if t.count == 0 || t.last.IsZero() {
		return strconv.Itoa(t.count)
	}
	return fmt.Sprintf("%d (%s ago)", t.count, registry.Age(t.last.Time, now))
}

// summary is the contents of the columns Ready, Status and Restarts.
type summary struct {
	ready, total int
	reason       string
	restarts     tally
}

func summarize(pod *corev1.Pod) summary {
	s := summary{total: len(pod.Spec.Containers), reason: phaseReason(&pod.Status)}
	sidecars := sidecarNames(&pod.Spec)
	s.total += len(sidecars)

	initializing, sidecarRestarts := s.initContainers(pod, sidecars)
	if !initializing || conditionTrue(&pod.Status, corev1.PodInitialized) {
		s.restarts = sidecarRestarts
		s.mainContainers(&pod.Status)
	}
	if pod.DeletionTimestamp != nil {
		switch {
		case pod.Status.Reason == nodeLost:
			s.reason = "Unknown"
		case pod.Status.Phase != corev1.PodFailed && pod.Status.Phase != corev1.PodSucceeded:
			s.reason = "Terminating"
		}
	}
	return s
}

func phaseReason(status *corev1.PodStatus) string {
	for i := range status.Conditions {
		c := &status.Conditions[i]
		if c.Type == corev1.PodScheduled && c.Reason == corev1.PodReasonSchedulingGated {
			return corev1.PodReasonSchedulingGated
		}
	}
	if status.Reason != "" {
		return status.Reason
	}
	return string(status.Phase)
}

// sidecarNames returns the init containers that keep running beside the main containers.
func sidecarNames(spec *corev1.PodSpec) map[string]bool {
	names := map[string]bool{}
	for i := range spec.InitContainers {
		if podvalidation.IsSidecar(&spec.InitContainers[i]) {
			names[spec.InitContainers[i].Name] = true
		}
	}
	return names
}

// initContainers reads the init containers up to the first that has not completed, which gives the reason. It reports
// whether there is one, and returns the restarts of the sidecars before it.
func (s *summary) initContainers(pod *corev1.Pod, sidecars map[string]bool) (initializing bool, sidecarRestarts tally) {
	for i := range pod.Status.InitContainerStatuses {
		c := &pod.Status.InitContainerStatuses[i]
		s.restarts.add(c)
		if sidecars[c.Name] {
			sidecarRestarts.add(c)
		}
		if c.State.Terminated != nil && c.State.Terminated.ExitCode == 0 {
			continue
		}
		if sidecars[c.Name] && c.Started != nil && *c.Started {
			if c.Ready {
				s.ready++
			}
			continue
		}
		s.reason = initReason(c, i, len(pod.Spec.InitContainers))
		return true, sidecarRestarts
	}
	return false, sidecarRestarts
}

func initReason(c *corev1.ContainerStatus, index, total int) string {
	if c.State.Terminated != nil {
		return "Init:" + endReason(c.State.Terminated)
	}
	if w := c.State.Waiting; w != nil && w.Reason != "" && w.Reason != "PodInitializing" {
		return "Init:" + w.Reason
	}
	return fmt.Sprintf("Init:%d/%d", index, total)
}

func endReason(t *corev1.ContainerStateTerminated) string {
	switch {
	case t.Reason != "":
		return t.Reason
	case t.Signal != 0:
		return fmt.Sprintf("Signal:%d", t.Signal)
	default:
		return fmt.Sprintf("ExitCode:%d", t.ExitCode)
	}
}

// mainContainers reads the containers from the last to the first, so that the first container with a reason is shown.
func (s *summary) mainContainers(status *corev1.PodStatus) {
	running := false
	for i := len(status.ContainerStatuses) - 1; i >= 0; i-- {
		c := &status.ContainerStatuses[i]
		s.restarts.add(c)
		switch {
		case c.State.Waiting != nil && c.State.Waiting.Reason != "":
			s.reason = c.State.Waiting.Reason
		case c.State.Terminated != nil:
			s.reason = endReason(c.State.Terminated)
		case c.Ready && c.State.Running != nil:
			running = true
			s.ready++
		}
	}
	if s.reason == "Completed" && running {
		s.reason = "NotReady"
		if conditionTrue(status, corev1.PodReady) {
			s.reason = string(corev1.PodRunning)
		}
	}
}
