package api

import (
	"fmt"
	"net/url"
	"reflect"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/conversion"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
)

// schemeVersion is what a scheme registers for one version of an API group.
//
// Every kind has one Go type, the versioned one of k8s.io/api. The library also requires an internal version of each served kind;
// the same Go type is registered as that, so conversion between the two only changes the group and version of the object. A kind
// can be a second form of another kind, as the Event of events.k8s.io is a second form of the core Event. Its internal form is
// the type of the other kind, and its objects are converted.
type schemeVersion struct {
	schema.GroupVersion
	// types are the Go types of the version's kinds.
	types []runtime.Object
	// internal are the Go types of the group's internal version, in which objects are stored and validated. A kind of
	// types that is not among them is its own internal form.
	internal []runtime.Object
	// add registers the rest: conversions, defaults, field labels.
	add []func(*runtime.Scheme) error
}

// newScheme returns the scheme that the server decodes, defaults, converts and stores with. The versions of one group
// are in the order of preference, and groups in the order in which discovery lists them.
func newScheme(versions []schemeVersion) *runtime.Scheme {
	s := newPublishedScheme(versions)
	for _, v := range versions {
		internal := schema.GroupVersion{Group: v.Group, Version: runtime.APIVersionInternal}
		s.AddKnownTypes(internal, v.internal...)
		for _, example := range v.types {
			if !s.Recognizes(internal.WithKind(kindOf(example))) {
				s.AddKnownTypes(internal, example)
			}
		}
		for _, add := range v.add {
			utilruntime.Must(add(s))
		}
	}
	return s
}

// newPublishedScheme returns a scheme without internal versions. OpenAPI names are made from it; with the full scheme,
// the internal version would appear in the lists of group, version and kind that clients read.
func newPublishedScheme(versions []schemeVersion) *runtime.Scheme {
	s := runtime.NewScheme()
	order := map[string][]schema.GroupVersion{}
	for _, v := range versions {
		s.AddKnownTypes(v.GroupVersion, v.types...)
		metav1.AddToGroupVersion(s, v.GroupVersion)
		order[v.Group] = append(order[v.Group], v.GroupVersion)
		utilruntime.Must(s.SetVersionPriority(order[v.Group]...))
	}
	s.AddUnversionedTypes(schema.GroupVersion{Version: "v1"},
		&metav1.Status{}, &metav1.APIVersions{}, &metav1.APIGroupList{}, &metav1.APIGroup{}, &metav1.APIResourceList{})
	return s
}

// kindOf returns the name of a kind, which is the name of its Go type.
func kindOf(example runtime.Object) string { return reflect.TypeOf(example).Elem().Name() }

// defaultWith registers the defaults of one kind.
func defaultWith[T runtime.Object](set func(T)) func(*runtime.Scheme) error {
	return func(s *runtime.Scheme) error {
		var kind T
		s.AddTypeDefaultingFunc(kind, func(obj any) { set(obj.(T)) })
		return nil
	}
}

// convertWith registers one conversion between two kinds.
func convertWith[In, Out any](fn func(*In, *Out)) func(*runtime.Scheme) error {
	return func(s *runtime.Scheme) error {
		return s.AddConversionFunc((*In)(nil), (*Out)(nil), func(in, out any, _ conversion.Scope) error {
			fn(in.(*In), out.(*Out))
			return nil
		})
	}
}

// readQueryWith registers how the options of a request are read from the query of its URL.
func readQueryWith[T any](read func(*url.Values, *T) error) func(*runtime.Scheme) error {
	return func(s *runtime.Scheme) error {
		return s.AddConversionFunc((*url.Values)(nil), (*T)(nil), func(in, out any, _ conversion.Scope) error {
			return read(in.(*url.Values), out.(*T))
		})
	}
}

// selectBy registers the fields that a field selector on a kind may name, each with its name in the stored form.
// Objects of a kind that is not registered can be selected by metadata.name and metadata.namespace only.
func selectBy(gvk schema.GroupVersionKind, stored map[string]string) func(*runtime.Scheme) error {
	return func(s *runtime.Scheme) error {
		return s.AddFieldLabelConversionFunc(gvk, func(label, value string) (string, string, error) {
			name, ok := stored[label]
			if !ok {
				return "", "", fmt.Errorf("field label not supported: %s", label)
			}
			return name, value, nil
		})
	}
}
