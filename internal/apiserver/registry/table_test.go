package registry

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clocktesting "k8s.io/utils/clock/testing"
	"k8s.io/utils/ptr"
)

var (
	now     = time.Date(2026, 8, 1, 12, 0, 0, 0, time.UTC)
	columns = []metav1.TableColumnDefinition{{Name: "Name", Type: "string"}, {Name: "Age", Type: "string"}}
)

func newTable() *tableConvertor[*corev1.ConfigMap] {
	c := TableOf(columns, func(m *corev1.ConfigMap, now time.Time) []any {
		return []any{m.Name, now.Sub(m.CreationTimestamp.Time).String()}
	}).(*tableConvertor[*corev1.ConfigMap])
	c.clock = clocktesting.NewFakePassiveClock(now)
	return c
}

func item(name string) corev1.ConfigMap {
	return corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name, ResourceVersion: "7", CreationTimestamp: metav1.NewTime(now.Add(-time.Minute))}}
}

func TestConvert(t *testing.T) {
	t.Parallel()
	a, b := item("a"), item("b")
	list := &corev1.ConfigMapList{
		ListMeta: metav1.ListMeta{ResourceVersion: "9", Continue: "next", RemainingItemCount: ptr.To[int64](3)}, Items: []corev1.ConfigMap{a, b},
	}
	for _, test := range []struct {
		name    string
		obj     runtime.Object
		options runtime.Object
		want    metav1.Table
		cells   [][]any
	}{
		{"object", &a, nil, metav1.Table{ListMeta: metav1.ListMeta{ResourceVersion: "7"}, ColumnDefinitions: columns}, [][]any{{"a", "1m0s"}}},
		{"list", list, &metav1.TableOptions{}, metav1.Table{ListMeta: list.ListMeta, ColumnDefinitions: columns}, [][]any{{"a", "1m0s"}, {"b", "1m0s"}}},
		{"without headers", &a, &metav1.TableOptions{NoHeaders: true}, metav1.Table{ListMeta: metav1.ListMeta{ResourceVersion: "7"}}, [][]any{{"a", "1m0s"}}},
		{"empty list", &corev1.ConfigMapList{ListMeta: metav1.ListMeta{ResourceVersion: "9"}}, nil,
			metav1.Table{ListMeta: metav1.ListMeta{ResourceVersion: "9"}, ColumnDefinitions: columns}, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			got, err := newTable().ConvertToTable(t.Context(), test.obj, test.options)
			if err != nil {
				t.Fatal(err)
			}
			var cells [][]any
			for _, row := range got.Rows {
				cells = append(cells, row.Cells)
				if _, ok := row.Object.Object.(*corev1.ConfigMap); !ok {
					t.Errorf("the row has %T, from which kubectl reads namespaces and labels", row.Object.Object)
				}
			}
			got.Rows = nil
			if diff := cmp.Diff(&test.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(test.cells, cells); diff != "" {
				t.Errorf("cells (-want +got):\n%s", diff)
			}
		})
	}
}

func TestAnotherKindIsAnError(t *testing.T) {
	t.Parallel()
	for _, obj := range []runtime.Object{&corev1.Pod{}, &corev1.PodList{Items: make([]corev1.Pod, 1)}} {
		if _, err := newTable().ConvertToTable(t.Context(), obj, nil); err == nil {
			t.Errorf("%T is printed", obj)
		}
	}
}

func TestAge(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)
	for _, test := range []struct {
		name string
		then time.Time
		want string
	}{
		{"never", time.Time{}, "<unknown>"},
		{"now", now, "0s"},
		{"minutes", now.Add(-312 * time.Second), "5m12s"},
		{"days", now.Add(-72 * time.Hour), "3d"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			if got := Age(test.then, now); got != test.want {
				t.Errorf("Age(%v) = %q, want %q", test.then, got, test.want)
			}
		})
	}
}
