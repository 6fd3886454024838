package scheme

import (
	"k8s.io/apimachinery/pkg/conversion"
	"k8s.io/apimachinery/pkg/runtime"

	"lanyard.dev/internal/apiserver/registry/event"
)

func addEventConversions(s *runtime.Scheme) error {
	return firstError(
		convert(s, event.ToEventsV1), convert(s, event.FromEventsV1),
		convert(s, event.ToEventsV1List), convert(s, event.FromEventsV1List),
	)
}

func firstError(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// convert registers one conversion between two kinds.
func convert[In, Out any](s *runtime.Scheme, fn func(*In, *Out)) error {
	return s.AddConversionFunc((*In)(nil), (*Out)(nil), func(in, out any, _ conversion.Scope) error {
		fn(in.(*In), out.(*Out))
		return nil
	})
}
