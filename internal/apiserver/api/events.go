package api

import (
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"lanyard.dev/internal/apiserver/registry"
	"lanyard.dev/internal/apiserver/registry/event"
)

// events serves the events of the core group in another form, with stricter validation of new ones.
func events() Group {
	return Group{Name: eventsv1.GroupName, Versions: []Version{{Name: "v1", Resources: []Resource{
		{
			Name: "events", Singular: "event", ShortNames: []string{"ev"}, Namespaced: true,
			Kind: &eventsv1.Event{}, List: &eventsv1.EventList{}, Columns: event.Columns,
			Stored: SameObjects[*corev1.Event]{
				Of: corev1.Resource("events"), Internal: &corev1.Event{}, InternalList: &corev1.EventList{},
				Strategy: func(s *registry.Strategy[*corev1.Event]) {
					s.Check, s.CheckUpdate = event.ValidateStrict, event.ValidateUpdateStrict
				},
				Conversions: []func(*runtime.Scheme) error{
					convertWith(event.ToEventsV1), convertWith(event.FromEventsV1),
					convertWith(event.ToEventsV1List), convertWith(event.FromEventsV1List),
				},
				Labels: map[string]string{
					"regarding.kind": "involvedObject.kind", "regarding.namespace": "involvedObject.namespace",
					"regarding.name": "involvedObject.name", "regarding.uid": "involvedObject.uid",
					"regarding.apiVersion": "involvedObject.apiVersion", "regarding.resourceVersion": "involvedObject.resourceVersion",
					"regarding.fieldPath": "involvedObject.fieldPath",
					"reason":              "reason", "reportingController": "reportingComponent", "type": "type",
					"metadata.name": "metadata.name", "metadata.namespace": "metadata.namespace",
				},
			},
		},
	}}}}
}
