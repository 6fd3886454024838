// Package event validates and prints events, and converts them between the forms of the two API groups that serve them.
//
// An event is stored in the form of core/v1. The package does not know who reports events, and does not count them.
package event

import (
	"cmp"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"

	"lanyard.dev/internal/apiserver/registry"
)

// TTL is how long an event is stored.
const TTL = time.Hour

// Fields returns the fields that a field selector may name, by their names in core/v1, with the values of e.
func Fields(e *corev1.Event) fields.Set {
	about := &e.InvolvedObject
	return fields.Set{
		"metadata.name":                  e.Name,
		"metadata.namespace":             e.Namespace,
		"involvedObject.kind":            about.Kind,
		"involvedObject.namespace":       about.Namespace,
		"involvedObject.name":            about.Name,
		"involvedObject.uid":             string(about.UID),
		"involvedObject.apiVersion":      about.APIVersion,
		"involvedObject.resourceVersion": about.ResourceVersion,
		"involvedObject.fieldPath":       about.FieldPath,
		"reason":                         e.Reason,
		"reportingComponent":             e.ReportingController,
		"source":                         cmp.Or(e.Source.Component, e.ReportingController),
		"type":                           e.Type,
	}
}

// Columns are the columns of kubectl get events.
var Columns = []metav1.TableColumnDefinition{
	{Name: "Last Seen", Type: "string", Description: "Time since the event last happened."},
	{Name: "Type", Type: "string", Description: "Normal or Warning."},
	{Name: "Reason", Type: "string", Description: "Reason of the event, in one word."},
	{Name: "Object", Type: "string", Description: "Kind and name of the object that the event is about."},
	{Name: "Subobject", Type: "string", Priority: 1, Description: "Which part of the object the event is about."},
	{Name: "Source", Type: "string", Priority: 1, Description: "Component that reports the event, and its host."},
	{Name: "Message", Type: "string", Description: "Description of what happened."},
	{Name: "First Seen", Type: "string", Priority: 1, Description: "Time since the event first happened."},
	{Name: "Count", Type: "string", Priority: 1, Description: "How often the event has happened."},
	{Name: "Name", Type: "string", Priority: 1, Description: "Name of the event."},
}

// Row returns a cell for each of Columns, with the ages at the time now.
func Row(e *corev1.Event, now time.Time) []any {
	first, last, count := happened(e)
	return []any{
		registry.Age(last, now), e.Type, e.Reason, about(&e.InvolvedObject), e.InvolvedObject.FieldPath, source(e),
		strings.TrimSpace(e.Message), registry.Age(first, now), int64(count), e.Name,
	}
}

// happened returns when the event first and last happened, and how often. It reads the series if there is one, else the old
// time stamps, else eventTime.
func happened(e *corev1.Event) (first, last time.Time, count int32) {
	first = e.FirstTimestamp.Time
	if first.IsZero() {
		first = e.EventTime.Time
	}
	if e.Series != nil {
		return first, e.Series.LastObservedTime.Time, e.Series.Count
	}
	last = e.LastTimestamp.Time
	if last.IsZero() {
		last = first
	}
	return first, last, cmp.Or(e.Count, 1)
}

func about(ref *corev1.ObjectReference) string {
	kind := strings.ToLower(ref.Kind)
	if ref.Name == "" {
		return kind
	}
	return kind + "/" + ref.Name
}

func source(e *corev1.Event) string {
	component := cmp.Or(e.Source.Component, e.ReportingController)
	if instance := cmp.Or(e.Source.Host, e.ReportingInstance); instance != "" {
		return component + ", " + instance
	}
	return component
}

// ToEventsV1 converts an event to events.k8s.io/v1. It overwrites all of out but its TypeMeta, and loses nothing. Afterwards both
// objects share memory: maps, slices, and all pointers except the pointer to the series.
func ToEventsV1(in *corev1.Event, out *eventsv1.Event) {
	*out = eventsv1.Event{
		TypeMeta:                 out.TypeMeta,
		ObjectMeta:               in.ObjectMeta,
		EventTime:                in.EventTime,
		ReportingController:      in.ReportingController,
		ReportingInstance:        in.ReportingInstance,
		Action:                   in.Action,
		Reason:                   in.Reason,
		Regarding:                in.InvolvedObject,
		Related:                  in.Related,
		Note:                     in.Message,
		Type:                     in.Type,
		DeprecatedSource:         in.Source,
		DeprecatedFirstTimestamp: in.FirstTimestamp,
		DeprecatedLastTimestamp:  in.LastTimestamp,
		DeprecatedCount:          in.Count,
	}
	if s := in.Series; s != nil {
		out.Series = &eventsv1.EventSeries{Count: s.Count, LastObservedTime: s.LastObservedTime}
	}
}

// FromEventsV1 is the inverse of ToEventsV1, and shares memory as it does.
func FromEventsV1(in *eventsv1.Event, out *corev1.Event) {
	*out = corev1.Event{
		TypeMeta:            out.TypeMeta,
		ObjectMeta:          in.ObjectMeta,
		InvolvedObject:      in.Regarding,
		Reason:              in.Reason,
		Message:             in.Note,
		Source:              in.DeprecatedSource,
		FirstTimestamp:      in.DeprecatedFirstTimestamp,
		LastTimestamp:       in.DeprecatedLastTimestamp,
		Count:               in.DeprecatedCount,
		Type:                in.Type,
		EventTime:           in.EventTime,
		Action:              in.Action,
		Related:             in.Related,
		ReportingController: in.ReportingController,
		ReportingInstance:   in.ReportingInstance,
	}
	if s := in.Series; s != nil {
		out.Series = &corev1.EventSeries{Count: s.Count, LastObservedTime: s.LastObservedTime}
	}
}

// ToEventsV1List converts a list. A nil list of items stays nil, and an empty one stays empty.
func ToEventsV1List(in *corev1.EventList, out *eventsv1.EventList) {
	out.ListMeta, out.Items = in.ListMeta, nil
	if in.Items == nil {
		return
	}
	out.Items = make([]eventsv1.Event, len(in.Items))
	for i := range in.Items {
		ToEventsV1(&in.Items[i], &out.Items[i])
	}
}

// FromEventsV1List is the inverse of ToEventsV1List.
func FromEventsV1List(in *eventsv1.EventList, out *corev1.EventList) {
	out.ListMeta, out.Items = in.ListMeta, nil
	if in.Items == nil {
		return
	}
	out.Items = make([]corev1.Event, len(in.Items))
	for i := range in.Items {
		FromEventsV1(&in.Items[i], &out.Items[i])
	}
}
