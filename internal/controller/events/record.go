// Package events writes the events with which controllers tell people what they did.
//
// Nobody waits for an event, and one may be lost: they are written one after another, a repetition raises the count of
// the first, and what one controller says about one object is limited to 25 events and one more every five minutes. The
// rules are client-go's.
package events

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	"k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/apiserver/pkg/registry/rest"
	"k8s.io/client-go/tools/record"

	"lanyard.dev/internal/controller"
)

// writeTimeout bounds one write, so that storage that hangs does not hold up the end of the process.
const writeTimeout = 10 * time.Second

// Store is the part of the events' store that is used.
type Store interface {
	rest.Creater
	rest.Updater
}

// Recorder writes events.
type Recorder struct {
	events      Store
	namespaces  rest.Getter
	scheme      *runtime.Scheme
	broadcaster record.EventBroadcaster
}

// New returns a recorder over the stores of events and of namespaces.
func New(events Store, namespaces rest.Getter) *Recorder {
	scheme := runtime.NewScheme()
	utilruntime.Must(corev1.AddToScheme(scheme))
	return &Recorder{events: events, namespaces: namespaces, scheme: scheme, broadcaster: record.NewBroadcaster()}
}

// For returns what a component tells of events with.
func (r *Recorder) For(component string) controller.Events {
	return r.broadcaster.NewRecorder(r.scheme, corev1.EventSource{Component: component})
}

// Run writes events until ctx ends. What is told of before it runs is lost.
func (r *Recorder) Run(ctx context.Context) {
	defer r.broadcaster.Shutdown()
	defer r.broadcaster.StartRecordingToSink(&sink{Recorder: r, ctx: ctx}).Stop()
	<-ctx.Done()
}

// sink is the store of events as record.EventSink.
type sink struct {
	*Recorder
	ctx context.Context
}

var _ record.EventSink = &sink{}

// Create implements record.EventSink. As admission is not asked here, it looks itself whether anything may be made in
// the namespace: what came into one that is already empty would outlive it.
func (s *sink) Create(event *corev1.Event) (*corev1.Event, error) {
	ctx, cancel := s.in(event.Namespace)
	defer cancel()
	if err := s.open(ctx, event.Namespace); err != nil {
		return nil, err
	}
	made, err := s.events.Create(ctx, event, rest.ValidateAllObjectFunc, &metav1.CreateOptions{})
	if err != nil {
		return nil, err
	}
	return made.(*corev1.Event), nil
}

func (s *sink) in(namespace string) (context.Context, context.CancelFunc) {
	return context.WithTimeout(request.WithNamespace(s.ctx, namespace), writeTimeout)
}

func (s *sink) open(ctx context.Context, name string) error {
	found, err := s.namespaces.Get(request.WithNamespace(ctx, metav1.NamespaceNone), name, &metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		return ended(name)
	case err != nil:
		return err
	case found.(*corev1.Namespace).DeletionTimestamp != nil:
		return ended(name)
	}
	return nil
}

// ended is the refusal that client-go takes for no fault.
func ended(namespace string) error {
	err := apierrors.NewForbidden(corev1.Resource("events"), "", fmt.Errorf("namespace %s is ending", namespace))
	err.ErrStatus.Details.Causes = []metav1.StatusCause{{Type: corev1.NamespaceTerminatingCause, Field: "metadata.namespace"}}
	return err
}

// Update implements record.EventSink; nothing calls it.
func (s *sink) Update(event *corev1.Event) (*corev1.Event, error) { return s.Patch(event, nil) }

// Patch implements record.EventSink. What differs between event and what is stored is known, so it is set.
func (s *sink) Patch(event *corev1.Event, _ []byte) (*corev1.Event, error) {
	ctx, cancel := s.in(event.Namespace)
	defer cancel()
	repeat := rest.DefaultUpdatedObjectInfo(nil, func(_ context.Context, _, stored runtime.Object) (runtime.Object, error) {
		was := stored.(*corev1.Event)
		if was.ResourceVersion == "" {
			// Events have an end. To make this one anew, all of it is needed.
			return nil, apierrors.NewNotFound(corev1.Resource("events"), event.Name)
		}
		now := was.DeepCopy()
		now.Count, now.LastTimestamp, now.Message = event.Count, event.LastTimestamp, event.Message
		return now, nil
	})
	written, _, err := s.events.Update(ctx, event.Name, repeat, rest.ValidateAllObjectFunc, rest.ValidateAllObjectUpdateFunc, false, &metav1.UpdateOptions{})
	if err != nil {
		return nil, err
	}
	return written.(*corev1.Event), nil
}
