package pod

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
)

// The reasons of events. Most are the reasons that a kubelet uses.
const (
	reasonPulling          = "Pulling"
	reasonPulled           = "Pulled"
	reasonFailed           = "Failed"
	reasonInspectFailed    = "InspectFailed"
	reasonNeverPull        = "ErrImageNeverPull"
	reasonBackOff          = "BackOff"
	reasonCreated          = "Created"
	reasonStarted          = "Started"
	reasonKilling          = "Killing"
	reasonFailedMount      = "FailedMount"
	reasonFailedSandbox    = "FailedCreatePodSandBox"
	reasonSandboxChanged   = "SandboxChanged"
	reasonPullSecrets      = "FailedToRetrieveImagePullSecret"
	reasonFailedCleanUp    = "FailedKillPod"
	reasonUnsupportedField = "UnsupportedField"
	reasonTokenRenewed     = "TokenRenewed"
	reasonRenewNotified    = "RenewalNotified"
	reasonRenewUnnotified  = "FailedRenewalNotify"
)

// normal and warning record events for a pod.
func (p *Pods) normal(pod *corev1.Pod, reason, format string, args ...any) {
	p.Recorder.Event(reference(pod, ""), corev1.EventTypeNormal, reason, fmt.Sprintf(format, args...))
}

func (p *Pods) warning(pod *corev1.Pod, reason, format string, args ...any) {
	p.Recorder.Event(reference(pod, ""), corev1.EventTypeWarning, reason, fmt.Sprintf(format, args...))
}

// normalOf and warningOf record events for one container of a pod.
func (p *Pods) normalOf(pod *corev1.Pod, container, reason, format string, args ...any) {
	p.Recorder.Event(reference(pod, container), corev1.EventTypeNormal, reason, fmt.Sprintf(format, args...))
}

func (p *Pods) warningOf(pod *corev1.Pod, container, reason, format string, args ...any) {
	p.Recorder.Event(reference(pod, container), corev1.EventTypeWarning, reason, fmt.Sprintf(format, args...))
}

// reference returns a reference to the pod, or to a container in it.
func reference(pod *corev1.Pod, container string) *corev1.ObjectReference {
	ref := &corev1.ObjectReference{
		APIVersion: "v1", Kind: "Pod", Namespace: pod.Namespace, Name: pod.Name, UID: pod.UID, ResourceVersion: pod.ResourceVersion,
	}
	if container == "" {
		return ref
	}
	ref.FieldPath = "spec.containers{" + container + "}"
	for _, c := range pod.Spec.InitContainers {
		if c.Name == container {
			ref.FieldPath = "spec.initContainers{" + container + "}"
		}
	}
	return ref
}
