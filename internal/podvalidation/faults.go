package podvalidation

import (
	"slices"

	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// maxFaults bounds the number of faults in one refusal, and so the memory that a hostile pod of a megabyte can use.
const maxFaults = 250

// faults collects faults in the order in which they are found. It drops those after the first maxFaults.
type faults struct {
	list field.ErrorList
}

func (f *faults) add(errs ...*field.Error) {
	room := maxFaults - len(f.list)
	f.list = append(f.list, errs[:min(room, len(errs))]...)
}

func (f *faults) full() bool {
	return len(f.list) >= maxFaults
}

func (f *faults) required(p *field.Path, why string) {
	f.add(field.Required(p, why))
}

// invalid adds a fault for each reason. It adds none if there are no reasons.
func (f *faults) invalid(p *field.Path, value any, reasons ...string) {
	for _, why := range reasons {
		if f.full() {
			return
		}
		f.add(field.Invalid(p, value, why))
	}
}

func (f *faults) forbidden(p *field.Path, why string) {
	f.add(field.Forbidden(p, why))
}

// unique adds a fault at p if seen has the value, and adds the value to seen.
func (f *faults) unique(seen sets.Set[string], p *field.Path, value string) {
	if seen.Has(value) {
		f.add(field.Duplicate(p, value))
	}
	seen.Insert(value)
}

func (f *faults) label(p *field.Path, value string) {
	f.invalid(p, value, validation.IsDNS1123Label(value)...)
}

func (f *faults) subdomain(p *field.Path, value string) {
	f.invalid(p, value, validation.IsDNS1123Subdomain(value)...)
}

func (f *faults) optionalSubdomain(p *field.Path, value string) {
	if value != "" {
		f.subdomain(p, value)
	}
}

// requiredSubdomain checks the name of another object, which must be set.
func (f *faults) requiredSubdomain(p *field.Path, value string) {
	if value == "" {
		f.required(p, "")
		return
	}
	f.subdomain(p, value)
}

// notEmpty requires a value, and does not check it further.
func (f *faults) notEmpty(p *field.Path, value string) {
	if value == "" {
		f.required(p, "")
	}
}

func (f *faults) nonNegative(p *field.Path, value int64) {
	if value < 0 {
		f.invalid(p, value, "must be greater than or equal to 0")
	}
}

func oneOf[T ~string](f *faults, p *field.Path, value T, allowed ...T) {
	if !slices.Contains(allowed, value) {
		f.add(field.NotSupported(p, value, allowed))
	}
}

// optionalOneOf accepts nil and the allowed values. An empty string is accepted only if it is among the allowed values.
func optionalOneOf[T ~string](f *faults, p *field.Path, value *T, allowed ...T) {
	if value != nil {
		oneOf(f, p, *value, allowed...)
	}
}

func requireOneOf[T ~string](f *faults, p *field.Path, value T, allowed ...T) {
	if value == "" {
		f.required(p, "")
		return
	}
	oneOf(f, p, value, allowed...)
}
