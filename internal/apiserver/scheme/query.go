package scheme

import (
	"net/url"

	"k8s.io/apimachinery/pkg/conversion"
	"k8s.io/apimachinery/pkg/runtime"

	"lanyard.dev/internal/podoptions"
)

// addQueryConversions lets the library read the options of requests about running pods from their parameters.
func addQueryConversions(s *runtime.Scheme) error {
	return firstError(
		readQuery(s, podoptions.Log), readQuery(s, podoptions.Exec),
		readQuery(s, podoptions.Attach), readQuery(s, podoptions.PortForward),
	)
}

func readQuery[Options any](s *runtime.Scheme, read func(*url.Values, *Options) error) error {
	return s.AddConversionFunc((*url.Values)(nil), (*Options)(nil), func(in, out any, _ conversion.Scope) error {
		return read(in.(*url.Values), out.(*Options))
	})
}
