package scheme

import (
	"fmt"
	"net/url"
	"reflect"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/conversion"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
)

// Version is the part of one version of an API group that decoding needs.
type Version struct {
	schema.GroupVersion
	// Types are the Go types of the version's kinds.
	Types []runtime.Object
	// Internal are the Go types of the group's internal version, which objects are stored and validated as. A type of Types
	// whose kind is not among them is registered as its own internal form.
	Internal []runtime.Object
	// Add registers the rest: conversions, defaults, field labels.
	Add []func(*runtime.Scheme) error
}

// New returns the scheme the server decodes, defaults, converts and stores with. The versions of one group are given in the order of
// preference, and groups in the order in which discovery lists them.
func New(versions []Version) *runtime.Scheme {
	s := NewPublished(versions)
	for _, v := range versions {
		internal := schema.GroupVersion{Group: v.Group, Version: runtime.APIVersionInternal}
		s.AddKnownTypes(internal, v.Internal...)
		for _, example := range v.Types {
			if !s.Recognizes(internal.WithKind(KindOf(example))) {
				s.AddKnownTypes(internal, example)
			}
		}
		for _, add := range v.Add {
			utilruntime.Must(add(s))
		}
	}
	return s
}

// NewPublished returns a scheme of the published versions only. OpenAPI names are made from it: from the full scheme
// the internal version would leak into the group-version-kind lists that clients read.
func NewPublished(versions []Version) *runtime.Scheme {
	s := runtime.NewScheme()
	order := map[string][]schema.GroupVersion{}
	for _, v := range versions {
		s.AddKnownTypes(v.GroupVersion, v.Types...)
		metav1.AddToGroupVersion(s, v.GroupVersion)
		order[v.Group] = append(order[v.Group], v.GroupVersion)
		utilruntime.Must(s.SetVersionPriority(order[v.Group]...))
	}
	s.AddUnversionedTypes(schema.GroupVersion{Version: "v1"},
		&metav1.Status{}, &metav1.APIVersions{}, &metav1.APIGroupList{}, &metav1.APIGroup{}, &metav1.APIResourceList{})
	return s
}

// KindOf returns the name of a kind: that of its Go type.
func KindOf(example runtime.Object) string { return reflect.TypeOf(example).Elem().Name() }

// NewCodecs returns the codecs of s.
func NewCodecs(s *runtime.Scheme) serializer.CodecFactory { return serializer.NewCodecFactory(s) }

// Default registers the defaults of one kind.
func Default[T runtime.Object](set func(T)) func(*runtime.Scheme) error {
	return func(s *runtime.Scheme) error {
		var kind T
		s.AddTypeDefaultingFunc(kind, func(obj any) { set(obj.(T)) })
		return nil
	}
}

// Convert registers one conversion between two kinds.
func Convert[In, Out any](fn func(*In, *Out)) func(*runtime.Scheme) error {
	return func(s *runtime.Scheme) error {
		return s.AddConversionFunc((*In)(nil), (*Out)(nil), func(in, out any, _ conversion.Scope) error {
			fn(in.(*In), out.(*Out))
			return nil
		})
	}
}

// ReadQuery registers how the options of a request are read from its parameters.
func ReadQuery[Options any](read func(*url.Values, *Options) error) func(*runtime.Scheme) error {
	return func(s *runtime.Scheme) error {
		return s.AddConversionFunc((*url.Values)(nil), (*Options)(nil), func(in, out any, _ conversion.Scope) error {
			return read(in.(*url.Values), out.(*Options))
		})
	}
}

// FieldLabels registers the fields that a field selector on a kind may name, each with its name in the stored form. A kind
// that is not registered may be selected by metadata.name and metadata.namespace only.
func FieldLabels(gvk schema.GroupVersionKind, stored map[string]string) func(*runtime.Scheme) error {
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
