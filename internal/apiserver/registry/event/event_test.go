package event_test

import (
	"encoding/json"
	"fmt"
	"reflect"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"

	"lanyard.dev/internal/apiserver/registry/event"
)

// fill sets each field that v reaches to a value of its own, so that a conversion that drops or swaps a field fails the
// test.
func fill(v reflect.Value, next *int64) {
	*next++
	switch at := v.Addr().Interface().(type) {
	case *metav1.Time:
		*at = metav1.Unix(*next, 0)
		return
	case *metav1.MicroTime:
		*at = metav1.NewMicroTime(time.Unix(*next, 1000))
		return
	}
	switch v.Kind() {
	case reflect.String:
		v.SetString(fmt.Sprint("s", *next))
	case reflect.Int32, reflect.Int64:
		v.SetInt(*next)
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Uint8:
		v.SetUint(uint64(*next % 256))
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem(), next)
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		for i := range 2 {
			fill(v.Index(i), next)
		}
	case reflect.Map:
		key, value := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
		fill(key, next)
		fill(value, next)
		v.Set(reflect.MakeMap(v.Type()))
		v.SetMapIndex(key, value)
	case reflect.Struct:
		for i := range v.NumField() {
			if v.Type().Field(i).Type != reflect.TypeFor[metav1.TypeMeta]() {
				fill(v.Field(i), next)
			}
		}
	default:
		panic("test knows no " + v.Kind().String())
	}
}

func TestConversionKeepsEveryField(t *testing.T) {
	t.Parallel()
	var next int64
	var core, coreAgain corev1.EventList
	var newer, newerAgain eventsv1.EventList
	fill(reflect.ValueOf(&core).Elem(), &next)
	event.ToEventsV1List(core.DeepCopy(), &newer)
	event.FromEventsV1List(&newer, &coreAgain)
	if diff := cmp.Diff(core, coreAgain); diff != "" {
		t.Errorf("core/v1 and back (-want +got):\n%s", diff)
	}
	newer = eventsv1.EventList{}
	fill(reflect.ValueOf(&newer).Elem(), &next)
	event.FromEventsV1List(newer.DeepCopy(), &core)
	event.ToEventsV1List(&core, &newerAgain)
	if diff := cmp.Diff(newer, newerAgain); diff != "" {
		t.Errorf("events.k8s.io/v1 and back (-want +got):\n%s", diff)
	}
}

func TestConversionRenames(t *testing.T) {
	t.Parallel()
	in := legacy()
	out := eventsv1.Event{TypeMeta: metav1.TypeMeta{Kind: "Event"}, Note: "left over", Series: &eventsv1.EventSeries{}}
	event.ToEventsV1(in, &out)
	want := eventsv1.Event{
		TypeMeta: metav1.TypeMeta{Kind: "Event"}, ObjectMeta: in.ObjectMeta,
		Regarding: in.InvolvedObject, Reason: "Pulled", Note: "image is there\n", Type: "Normal",
		DeprecatedSource: in.Source, DeprecatedCount: 7,
		DeprecatedFirstTimestamp: in.FirstTimestamp, DeprecatedLastTimestamp: in.LastTimestamp,
	}
	if diff := cmp.Diff(want, out); diff != "" {
		t.Errorf("event (-want +got):\n%s", diff)
	}
}

func TestConversionKeepsAnAbsentList(t *testing.T) {
	t.Parallel()
	newer := eventsv1.EventList{Items: make([]eventsv1.Event, 1)}
	event.ToEventsV1List(&corev1.EventList{}, &newer)
	if newer.Items != nil {
		t.Errorf("items = %v, want nil", newer.Items)
	}
	event.ToEventsV1List(&corev1.EventList{Items: []corev1.Event{}}, &newer)
	if newer.Items == nil {
		t.Error("items = nil, want empty")
	}
}

// FuzzRoundTrip checks that no field of an event changes when it is converted to the other form and back.
func FuzzRoundTrip(f *testing.F) {
	for _, e := range []*corev1.Event{legacy(), modern(), {}} {
		data, err := json.Marshal(e)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var core, coreAgain corev1.Event
		var newer, newerAgain eventsv1.Event
		if json.Unmarshal(data, &core) == nil {
			core.TypeMeta = metav1.TypeMeta{}
			event.ToEventsV1(core.DeepCopy(), &newer)
			event.FromEventsV1(&newer, &coreAgain)
			if !reflect.DeepEqual(core, coreAgain) {
				t.Errorf("core/v1 and back (-want +got):\n%s", cmp.Diff(core, coreAgain))
			}
		}
		newer = eventsv1.Event{}
		if json.Unmarshal(data, &newer) == nil {
			newer.TypeMeta = metav1.TypeMeta{}
			event.FromEventsV1(newer.DeepCopy(), &core)
			event.ToEventsV1(&core, &newerAgain)
			newerAgain.TypeMeta = metav1.TypeMeta{}
			if !reflect.DeepEqual(newer, newerAgain) {
				t.Errorf("events.k8s.io/v1 and back (-want +got):\n%s", cmp.Diff(newer, newerAgain))
			}
		}
	})
}

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
