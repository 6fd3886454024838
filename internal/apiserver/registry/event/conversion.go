package event

import (
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
)

// ToEventsV1 writes in to out in the form of events.k8s.io/v1. All but out's TypeMeta is overwritten; nothing is lost,
// as FromEventsV1 shows. Both objects then share memory: maps, slices and what pointers point to, except the series.
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

// FromEventsV1 undoes ToEventsV1, on the same terms.
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

// ToEventsV1List converts a list as ToEventsV1 converts each item. No items and an empty list of them stay apart.
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

// FromEventsV1List undoes ToEventsV1List.
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
