package podvalidation

import (
	"slices"

	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// maxFaults bounds what one refusal says, and so the memory that a hostile pod of a megabyte can claim with it.
const maxFaults = 250

// faults collects what is wrong, in the order found. After maxFaults it keeps quiet.
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

// invalid adds one fault for each reason; without any, value is fine.
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

// once refuses value as a duplicate at p when seen has it, and else enters it there.
func (f *faults) once(seen sets.Set[string], p *field.Path, value string) {
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

// requiredSubdomain is for names that other objects go by.
func (f *faults) requiredSubdomain(p *field.Path, value string) {
	if value == "" {
		f.required(p, "")
		return
	}
	f.subdomain(p, value)
}

// text requires value to be there; what it says is not looked at.
func (f *faults) text(p *field.Path, value string) {
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

// optionalOneOf accepts a value that is not set at all; an empty one must be allowed like any other.
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
