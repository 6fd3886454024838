package controller

import corev1 "k8s.io/api/core/v1"

// SetPodCondition puts a condition into status and tells whether that changed anything but times. A condition whose
// status stays as it was keeps the time of its last transition.
func SetPodCondition(status *corev1.PodStatus, want corev1.PodCondition) bool {
	for i := range status.Conditions {
		is := &status.Conditions[i]
		if is.Type != want.Type {
			continue
		}
		if is.Status == want.Status {
			want.LastTransitionTime = is.LastTransitionTime
			if is.Reason == want.Reason && is.Message == want.Message {
				return false
			}
		}
		*is = want
		return true
	}
	status.Conditions = append(status.Conditions, want)
	return true
}

// Finished tells whether a pod has ended for good.
func Finished(pod *corev1.Pod) bool {
	return pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed
}

// NodeReady returns the status of a node's condition Ready, or "" where it has none.
func NodeReady(node *corev1.Node) corev1.ConditionStatus {
	for i := range node.Status.Conditions {
		if node.Status.Conditions[i].Type == corev1.NodeReady {
			return node.Status.Conditions[i].Status
		}
	}
	return ""
}
