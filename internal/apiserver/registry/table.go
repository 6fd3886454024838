package registry

import (
	"context"
	"fmt"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/duration"
	"k8s.io/apiserver/pkg/registry/rest"
	"k8s.io/utils/clock"
)

// Description describes a resource whose objects are not in a Store. Storage that embeds it implements rest.Scoper,
// rest.SingularNameProvider, rest.ShortNamesProvider, rest.CategoriesProvider and rest.TableConvertor.
type Description struct {
	Singular        string
	Short, Category []string
	Namespaced      bool
	rest.TableConvertor
}

// NamespaceScoped implements rest.Scoper.
func (d Description) NamespaceScoped() bool { return d.Namespaced }

// GetSingularName implements rest.SingularNameProvider.
func (d Description) GetSingularName() string { return d.Singular }

// ShortNames implements rest.ShortNamesProvider.
func (d Description) ShortNames() []string { return d.Short }

// Categories implements rest.CategoriesProvider.
func (d Description) Categories() []string { return d.Category }

// TableOf returns a convertor that prints objects of type T with the given columns. row returns one cell for each column,
// with ages at the time now.
func TableOf[T runtime.Object](columns []metav1.TableColumnDefinition, row func(obj T, now time.Time) []any) rest.TableConvertor {
	return &tableConvertor[T]{columns: columns, row: row, clock: clock.RealClock{}}
}

type tableConvertor[T runtime.Object] struct {
	columns []metav1.TableColumnDefinition
	row     func(T, time.Time) []any
	clock   clock.PassiveClock
}

// ConvertToTable implements rest.TableConvertor.
func (c *tableConvertor[T]) ConvertToTable(_ context.Context, obj, options runtime.Object) (*metav1.Table, error) {
	out := &metav1.Table{}
	now := c.clock.Now()
	add := func(o runtime.Object) error {
		item, ok := o.(T)
		if !ok {
			return fmt.Errorf("print %T: want %T", o, item)
		}
		out.Rows = append(out.Rows, metav1.TableRow{Cells: c.row(item, now), Object: runtime.RawExtension{Object: o}})
		return nil
	}
	if err := each(obj, add); err != nil {
		return nil, err
	}
	describe(out, obj)
	if opts, ok := options.(*metav1.TableOptions); !ok || !opts.NoHeaders {
		out.ColumnDefinitions = c.columns
	}
	return out, nil
}

func each(obj runtime.Object, fn func(runtime.Object) error) error {
	if meta.IsListType(obj) {
		return meta.EachListItem(obj, fn)
	}
	return fn(obj)
}

// describe copies the position in the list, by which clients page and watch.
func describe(out *metav1.Table, obj runtime.Object) {
	if list, err := meta.ListAccessor(obj); err == nil {
		out.ResourceVersion = list.GetResourceVersion()
		out.Continue = list.GetContinue()
		out.RemainingItemCount = list.GetRemainingItemCount()
		return
	}
	if common, err := meta.CommonAccessor(obj); err == nil {
		out.ResourceVersion = common.GetResourceVersion()
	}
}

// UnknownCell is the text of a cell whose value is not known.
const UnknownCell = "<unknown>"

// Age returns the time from then to now in at most two units ("5m12s", "3d"), or UnknownCell if then is zero.
func Age(then, now time.Time) string {
	if then.IsZero() {
		return UnknownCell
	}
	return duration.HumanDuration(now.Sub(then))
}
