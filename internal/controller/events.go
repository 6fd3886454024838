package controller

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	corev1client "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/tools/record"
)

// Events records what happened to objects. It does not block and may drop events.
type Events interface {
	// Event is of type corev1.EventTypeNormal or EventTypeWarning.
	Event(object runtime.Object, eventType, reason, message string)
}

// Recorder writes the events of one controller, one after another.
//
// A repetition raises the count of the first event. What a controller records about one object is limited to 25 events,
// and one more every five minutes. The rules are client-go's.
type Recorder struct {
	Events
	broadcaster record.EventBroadcaster
	sink        record.EventSink
}

// NewRecorder returns a recorder of events whose source is component.
func NewRecorder(component string, client kubernetes.Interface) *Recorder {
	broadcaster := record.NewBroadcaster()
	return &Recorder{
		Events:      broadcaster.NewRecorder(scheme.Scheme, corev1.EventSource{Component: component}),
		broadcaster: broadcaster,
		sink:        sink{&corev1client.EventSinkImpl{Interface: client.CoreV1().Events(metav1.NamespaceAll)}},
	}
}

// Run writes events until ctx ends. Events that are recorded before it runs are lost.
func (r *Recorder) Run(ctx context.Context) {
	defer r.broadcaster.Shutdown()
	defer r.broadcaster.StartRecordingToSink(r.sink).Stop()
	<-ctx.Done()
}

// sink writes events to the API.
type sink struct{ *corev1client.EventSinkImpl }

// Create implements record.EventSink. A namespace that is gone refuses an event like one that ends, which client-go
// does not log as an error.
func (s sink) Create(event *corev1.Event) (*corev1.Event, error) {
	made, err := s.EventSinkImpl.Create(event)
	if !apierrors.IsNotFound(err) {
		return made, err
	}
	gone := apierrors.NewForbidden(corev1.Resource("events"), "", fmt.Errorf("namespace %s is gone", event.Namespace))
	gone.ErrStatus.Details.Causes = []metav1.StatusCause{{Type: corev1.NamespaceTerminatingCause, Field: "metadata.namespace"}}
	return nil, gone
}
