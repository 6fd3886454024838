package event_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"

	"lanyard.dev/internal/apiserver/registry/event"
)

func TestRow(t *testing.T) {
	t.Parallel()
	series := modern()
	series.Series = &corev1.EventSeries{Count: 3, LastObservedTime: metav1.NewMicroTime(now.Add(-2 * time.Second))}
	for _, test := range []struct {
		name  string
		event *corev1.Event
		want  []any
	}{
		{"legacy", legacy(), []any{"60s", "Normal", "Pulled", "pod/web", "spec.containers{web}", "kubelet, node-1", "image is there", "60m", int64(7), "web.17"}},
		{"modern", modern(), []any{"30s", "Normal", "Scheduled", "pod/web", "", "example.com/scheduler, scheduler-0", "it has a place", "30s", int64(1), "web.18"}},
		{"series", series, []any{"2s", "Normal", "Scheduled", "pod/web", "", "example.com/scheduler, scheduler-0", "it has a place", "30s", int64(3), "web.18"}},
		{"bare", &corev1.Event{InvolvedObject: corev1.ObjectReference{Kind: "Node"}, Source: corev1.EventSource{Component: "c"}},
			[]any{"<unknown>", "", "", "node", "", "c", "", "<unknown>", int64(1), ""}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			row := event.Row(test.event, now)
			if diff := cmp.Diff(test.want, row); diff != "" {
				t.Errorf("row (-want +got):\n%s", diff)
			}
			if len(row) != len(event.Columns) {
				t.Errorf("%d cells for %d columns", len(row), len(event.Columns))
			}
		})
	}
}

func TestFields(t *testing.T) {
	t.Parallel()
	e := modern()
	e.InvolvedObject = corev1.ObjectReference{Kind: "Pod", Namespace: "shop", Name: "web", UID: "u", APIVersion: "v1", ResourceVersion: "9", FieldPath: "spec"}
	want := fields.Set{
		"metadata.name": "web.18", "metadata.namespace": "shop",
		"involvedObject.kind": "Pod", "involvedObject.namespace": "shop", "involvedObject.name": "web", "involvedObject.uid": "u",
		"involvedObject.apiVersion": "v1", "involvedObject.resourceVersion": "9", "involvedObject.fieldPath": "spec",
		"reason": "Scheduled", "reportingComponent": "example.com/scheduler", "source": "example.com/scheduler", "type": "Normal",
	}
	if diff := cmp.Diff(want, event.Fields(e)); diff != "" {
		t.Errorf("fields (-want +got):\n%s", diff)
	}
	if got := event.Fields(legacy())["source"]; got != "kubelet" {
		t.Errorf("source = %q, want kubelet", got)
	}
}
