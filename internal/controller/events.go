package controller

import "k8s.io/apimachinery/pkg/runtime"

// Events is told what happened to objects. It does not block and may drop what it is told.
type Events interface {
	// Event is of type corev1.EventTypeNormal or EventTypeWarning.
	Event(object runtime.Object, eventType, reason, message string)
}
