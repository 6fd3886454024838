// Package fieldtest compares the faults of a validation, and the rows of a table, with the expected ones, in tests.
//
// It depends on no kind, so that tests of domain packages can use it too. Only tests import it.
package fieldtest

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// Fault is an expected fault: its exact field path and type, and a part of its text after the path.
type Fault struct {
	Field  string
	Type   field.ErrorType
	Detail string
}

// Required returns the fault of a missing value.
func Required(path, detail string) Fault {
	return Fault{Field: path, Type: field.ErrorTypeRequired, Detail: detail}
}

// Invalid returns the fault of a malformed or contradictory value.
func Invalid(path, detail string) Fault {
	return Fault{Field: path, Type: field.ErrorTypeInvalid, Detail: detail}
}

// Forbidden returns the fault of a value that must not be set or changed.
func Forbidden(path, detail string) Fault {
	return Fault{Field: path, Type: field.ErrorTypeForbidden, Detail: detail}
}

// NotSupported returns the fault of a value that is not among the allowed ones.
func NotSupported(path, detail string) Fault {
	return Fault{Field: path, Type: field.ErrorTypeNotSupported, Detail: detail}
}

// TooLong returns the fault of a value above its limit.
func TooLong(path, detail string) Fault {
	return Fault{Field: path, Type: field.ErrorTypeTooLong, Detail: detail}
}

// Duplicate returns the fault of a value that must occur only once.
func Duplicate(path, detail string) Fault {
	return Fault{Field: path, Type: field.ErrorTypeDuplicate, Detail: detail}
}

// Check fails the test unless each fault of got matches one of want, and each of want is matched. Equal faults of got are treated
// as one, as in the status that a client reads.
func Check(t testing.TB, got field.ErrorList, want ...Fault) {
	t.Helper()
	met := make([]bool, len(want))
	for _, err := range got {
		if i := match(err, want); i >= 0 {
			met[i] = true
		} else {
			t.Errorf("unexpected fault: %v", err)
		}
	}
	for i, ok := range met {
		if !ok {
			t.Errorf("missing fault %+v among %v", want[i], got)
		}
	}
}

// CheckRow checks the cells of a row of a table, and that there is one for each column.
func CheckRow(t testing.TB, columns []metav1.TableColumnDefinition, row []any, want ...any) {
	t.Helper()
	if diff := cmp.Diff(want, row); diff != "" {
		t.Errorf("row (-want +got):\n%s", diff)
	}
	if len(row) != len(columns) {
		t.Errorf("%d cells for %d columns", len(row), len(columns))
	}
}

func match(err *field.Error, want []Fault) int {
	for i, w := range want {
		if err.Field == w.Field && err.Type == w.Type && strings.Contains(err.ErrorBody(), w.Detail) {
			return i
		}
	}
	return -1
}
