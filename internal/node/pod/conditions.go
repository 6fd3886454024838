package pod

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// setConditions sets the conditions that are the agent's to say, of a status that is otherwise complete.
func (s *situation) setConditions(status, was *corev1.PodStatus) {
	ready := s.containersReady(status)
	for _, c := range []corev1.PodCondition{
		s.readyToStart(), s.initializedCondition(status), as(corev1.PodReady, ready), as(corev1.ContainersReady, ready),
		{Type: corev1.PodScheduled, Status: corev1.ConditionTrue},
	} {
		c.ObservedGeneration = s.pod.Generation
		s.setCondition(status, was, c)
	}
}

func as(t corev1.PodConditionType, c corev1.PodCondition) corev1.PodCondition {
	c.Type = t
	return c
}

// setCondition keeps the time of the last transition unless the condition's status changes.
func (s *situation) setCondition(status, was *corev1.PodStatus, c corev1.PodCondition) {
	c.LastTransitionTime = metav1.NewTime(s.now)
	if i := findCondition(was, c.Type); i >= 0 && was.Conditions[i].Status == c.Status {
		c.LastTransitionTime = was.Conditions[i].LastTransitionTime
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
	if s.live() != nil {
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

// anyStarted says whether an ordinary container has ever run: what an init container does after that changes nothing.
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
