package event_test

import (
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"lanyard.dev/internal/apiserver/registry/event"
	"lanyard.dev/internal/apiserver/registry/fieldtest"
)

var now = time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)

func legacy() *corev1.Event {
	return &corev1.Event{
		ObjectMeta:     metav1.ObjectMeta{Name: "web.17", Namespace: "shop", ResourceVersion: "1"},
		InvolvedObject: corev1.ObjectReference{Kind: "Pod", Namespace: "shop", Name: "web", FieldPath: "spec.containers{web}"},
		Reason:         "Pulled",
		Message:        "image is there\n",
		Source:         corev1.EventSource{Component: "kubelet", Host: "node-1"},
		FirstTimestamp: metav1.NewTime(now.Add(-time.Hour)),
		LastTimestamp:  metav1.NewTime(now.Add(-time.Minute)),
		Count:          7,
		Type:           corev1.EventTypeNormal,
	}
}

func modern() *corev1.Event {
	return &corev1.Event{
		ObjectMeta:          metav1.ObjectMeta{Name: "web.18", Namespace: "shop", ResourceVersion: "1"},
		InvolvedObject:      corev1.ObjectReference{Kind: "Pod", Namespace: "shop", Name: "web"},
		EventTime:           metav1.NewMicroTime(now.Add(-30 * time.Second)),
		ReportingController: "example.com/scheduler",
		ReportingInstance:   "scheduler-0",
		Action:              "Binding",
		Reason:              "Scheduled",
		Message:             "it has a place",
		Type:                corev1.EventTypeNormal,
	}
}

const (
	aboutNamespace = "involvedObject.namespace"
	mismatch       = "does not match event.namespace"
)

func TestValidate(t *testing.T) {
	t.Parallel()
	in := func(namespace, about string) func(*corev1.Event) {
		return func(e *corev1.Event) { e.Namespace, e.InvolvedObject.Namespace = namespace, about }
	}
	refused := []fieldtest.Fault{fieldtest.Invalid(aboutNamespace, mismatch)}
	for _, test := range []struct {
		name   string
		event  *corev1.Event
		mutate func(*corev1.Event)
		want   []fieldtest.Fault
	}{
		{"legacy", legacy(), in("shop", "shop"), nil},
		{"legacy about a node", legacy(), in("default", ""), nil},
		{"legacy elsewhere", legacy(), in("shop", "other"), refused},
		{"legacy about a node elsewhere", legacy(), in("kube-system", ""), refused},
		{"legacy with any type", legacy(), func(e *corev1.Event) { e.Type, e.Message = "Odd", strings.Repeat("x", 5000) }, nil},
		{"modern", modern(), in("shop", "shop"), nil},
		{"modern about another namespace", modern(), in("default", "shop"), nil},
		{"modern about a node", modern(), in("kube-system", ""), nil},
		{"modern about a node elsewhere", modern(), in("shop", ""), refused},
		{"namespace", modern(), in("Shop", "shop"), []fieldtest.Fault{fieldtest.Invalid("namespace", "RFC 1123 subdomain")}},
		{"modern and silent", modern(), func(e *corev1.Event) {
			e.ReportingController, e.ReportingInstance, e.Action, e.Reason = "", "", "", ""
		}, []fieldtest.Fault{
			fieldtest.Required("reportingController", ""), fieldtest.Invalid("reportingController", "non-empty"),
			fieldtest.Invalid("reportingController", "must consist of"),
			fieldtest.Required("reportingInstance", ""), fieldtest.Required("action", ""), fieldtest.Required("reason", ""),
		}},
		{"modern at the limits", modern(), func(e *corev1.Event) {
			e.ReportingInstance, e.Message = strings.Repeat("x", 128), strings.Repeat("x", 1024)
		}, nil},
		{"modern and long", modern(), func(e *corev1.Event) {
			e.ReportingInstance, e.Action, e.Reason = strings.Repeat("x", 129), strings.Repeat("x", 129), strings.Repeat("x", 129)
			e.Message = strings.Repeat("x", 1025)
		}, []fieldtest.Fault{
			fieldtest.Invalid("reportingInstance", "can have at most 128 characters"), fieldtest.Invalid("action", "can have at most 128 characters"),
			fieldtest.Invalid("reason", "can have at most 128 characters"), fieldtest.Invalid("message", `"": can have at most 1024 characters`),
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			test.mutate(test.event)
			fieldtest.Check(t, event.Validate(test.event), test.want...)
			fieldtest.Check(t, event.ValidateUpdate(test.event, legacy()), test.want...)
		})
	}
}

func TestValidateStrict(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name   string
		mutate func(*corev1.Event)
		want   []fieldtest.Fault
	}{
		{"modern", func(*corev1.Event) {}, nil},
		{"series", func(e *corev1.Event) {
			e.Series = &corev1.EventSeries{Count: 2, LastObservedTime: metav1.NewMicroTime(now)}
		}, nil},
		{"name", func(e *corev1.Event) { e.Name = "A" }, []fieldtest.Fault{fieldtest.Invalid("metadata.name", "RFC 1123 subdomain")}},
		{"no time", func(e *corev1.Event) { e.EventTime = metav1.MicroTime{} }, []fieldtest.Fault{fieldtest.Required("eventTime", "")}},
		{"type", func(e *corev1.Event) { e.Type = "Odd" }, []fieldtest.Fault{fieldtest.Invalid("type", "has invalid value: Odd")}},
		{"short series", func(e *corev1.Event) { e.Series = &corev1.EventSeries{Count: 1} }, []fieldtest.Fault{
			fieldtest.Invalid("series.count", "should be at least 2"), fieldtest.Required("series.lastObservedTime", ""),
		}},
		{"legacy fields", func(e *corev1.Event) {
			e.FirstTimestamp, e.LastTimestamp, e.Count, e.Source.Host = metav1.NewTime(now), metav1.NewTime(now), 1, "node-1"
		}, []fieldtest.Fault{
			fieldtest.Invalid("firstTimestamp", "needs to be unset"), fieldtest.Invalid("lastTimestamp", "needs to be unset"),
			fieldtest.Invalid("count", "needs to be unset"), fieldtest.Invalid("source", "needs to be unset"),
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			e := modern()
			test.mutate(e)
			fieldtest.Check(t, event.ValidateStrict(e), test.want...)
		})
	}
}

func TestValidateUpdateStrict(t *testing.T) {
	t.Parallel()
	const immutable = "field is immutable"
	fixed := func(path string) []fieldtest.Fault { return []fieldtest.Fault{fieldtest.Invalid(path, immutable)} }
	for _, test := range []struct {
		name   string
		mutate func(*corev1.Event)
		want   []fieldtest.Fault
	}{
		{"series", func(e *corev1.Event) {
			e.Series = &corev1.EventSeries{Count: 3, LastObservedTime: metav1.NewMicroTime(now)}
		}, nil},
		{"label", func(e *corev1.Event) { e.Labels = map[string]string{"a": "b"} }, nil},
		{"bad series", func(e *corev1.Event) { e.Series = &corev1.EventSeries{LastObservedTime: metav1.NewMicroTime(now)} },
			[]fieldtest.Fault{fieldtest.Invalid("series.count", "should be at least 2")}},
		{"object", func(e *corev1.Event) { e.InvolvedObject.Name = "other" }, fixed("involvedObject")},
		{"reason", func(e *corev1.Event) { e.Reason = "Other" }, fixed("reason")},
		{"message", func(e *corev1.Event) { e.Message = "other" }, fixed("message")},
		{"source", func(e *corev1.Event) { e.Source.Host = "other" }, fixed("source")},
		{"first", func(e *corev1.Event) { e.FirstTimestamp = metav1.NewTime(now) }, fixed("firstTimestamp")},
		{"last", func(e *corev1.Event) { e.LastTimestamp = metav1.NewTime(now) }, fixed("lastTimestamp")},
		{"count", func(e *corev1.Event) { e.Count = 9 }, fixed("count")},
		{"type", func(e *corev1.Event) { e.Type = "Warning" }, fixed("type")},
		{"time", func(e *corev1.Event) { e.EventTime = metav1.NewMicroTime(now) }, fixed("eventTime")},
		{"action", func(e *corev1.Event) { e.Action = "Other" }, fixed("action")},
		{"related", func(e *corev1.Event) { e.Related = &corev1.ObjectReference{Kind: "Node"} }, fixed("related")},
		{"controller", func(e *corev1.Event) { e.ReportingController = "other" }, fixed("reportingController")},
		{"instance", func(e *corev1.Event) { e.ReportingInstance = "other" }, fixed("reportingInstance")},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			updated := modern()
			test.mutate(updated)
			fieldtest.Check(t, event.ValidateUpdateStrict(updated, modern()), test.want...)
		})
	}
}
