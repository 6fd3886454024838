// Package fieldtest compares validation faults with expected ones in tests.
//
// It knows no kind and is imported by tests only.
package fieldtest

import (
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/util/validation/field"
)

// Fault is an expected fault: its exact field path and type, and a part of what is printed after
// the path.
type Fault struct {
	Field  string
	Type   field.ErrorType
	Detail string
}

// Required is a missing value.
func Required(path, detail string) Fault {
	return Fault{Field: path, Type: field.ErrorTypeRequired, Detail: detail}
}

// Invalid is a malformed or contradictory value.
func Invalid(path, detail string) Fault {
	return Fault{Field: path, Type: field.ErrorTypeInvalid, Detail: detail}
}

// Forbidden is a value that may not be set or changed.
func Forbidden(path, detail string) Fault {
	return Fault{Field: path, Type: field.ErrorTypeForbidden, Detail: detail}
}

// NotSupported is a value that is not among the allowed ones.
func NotSupported(path, detail string) Fault {
	return Fault{Field: path, Type: field.ErrorTypeNotSupported, Detail: detail}
}

// TooLong is a value over its limit.
func TooLong(path, detail string) Fault {
	return Fault{Field: path, Type: field.ErrorTypeTooLong, Detail: detail}
}

// Duplicate is a value that may occur only once.
func Duplicate(path, detail string) Fault {
	return Fault{Field: path, Type: field.ErrorTypeDuplicate, Detail: detail}
}

// Check fails the test unless every fault of got matches one of want, and every one of want is met. Faults that got
// repeats word for word count once, as in the status that a client reads.
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

func match(err *field.Error, want []Fault) int {
	for i, w := range want {
		if err.Field == w.Field && err.Type == w.Type && strings.Contains(err.ErrorBody(), w.Detail) {
			return i
		}
	}
	return -1
}
