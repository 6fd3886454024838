package api

import (
	"fmt"
	"math/rand"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	"k8s.io/apimachinery/pkg/api/apitesting/fuzzer"
	"k8s.io/apimachinery/pkg/api/equality"
	metafuzzer "k8s.io/apimachinery/pkg/apis/meta/fuzzer"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	apiopenapi "k8s.io/apiserver/pkg/endpoints/openapi"
	"k8s.io/kube-openapi/pkg/validation/spec"

	"lanyard.dev/internal/apiserver/openapi"
	"lanyard.dev/internal/apiserver/registry/certificatesigningrequest"
	"lanyard.dev/internal/apiserver/registry/event"
	"lanyard.dev/internal/apiserver/registry/namespace"
	"lanyard.dev/internal/apiserver/registry/node"
	"lanyard.dev/internal/apiserver/registry/pod"
	"lanyard.dev/internal/apiserver/registry/secret"
)

// TestRoundTrip encodes random objects of every kind in every media type. The decoded object is the encoded one with
// defaults.
func TestRoundTrip(t *testing.T) {
	t.Parallel()
	s := All().NewScheme()
	codecs := serializer.NewCodecFactory(s)
	for _, version := range All().schemeVersions() {
		gv := version.GroupVersion
		if len(version.internal) > 0 {
			continue // TestEventsInBothForms converts between the forms
		}
		for _, example := range version.types {
			for _, media := range codecs.SupportedMediaTypes() {
				if _, ok := example.(interface{ Marshal() ([]byte, error) }); !ok && media.MediaType == runtime.ContentTypeProtobuf {
					continue // the kinds of this project have no protobuf form, and are not stored
				}
				gvk := kindIn(t, s, example, gv)
				t.Run(gvk.Kind+" as "+media.MediaType, func(t *testing.T) {
					t.Parallel()
					internal := schema.GroupVersion{Group: gv.Group, Version: runtime.APIVersionInternal}
					codec := codecs.CodecForVersions(media.Serializer, media.Serializer, gv, internal)
					random := fuzzer.FuzzerFor(metafuzzer.Funcs, rand.NewSource(1), codecs)
					for range 10 {
						want := example.DeepCopyObject()
						random.Fill(want)
						want.GetObjectKind().SetGroupVersionKind(schema.GroupVersionKind{})
						roundTrip(t, s, codec, want)
					}
				})
			}
		}
	}
}

func roundTrip(t *testing.T, s *runtime.Scheme, codec runtime.Codec, want runtime.Object) {
	t.Helper()
	data, err := runtime.Encode(codec, want)
	if err != nil {
		t.Fatalf("encode: %v", err)
	}
	got, err := runtime.Decode(codec, data)
	if err != nil {
		t.Fatalf("decode: %v", err)
	}
	s.Default(want)
	got.GetObjectKind().SetGroupVersionKind(schema.GroupVersionKind{})
	if !equality.Semantic.DeepEqual(want, got) {
		t.Fatalf("(-want +got):\n%s", cmp.Diff(want, got))
	}
}

func kindIn(t *testing.T, s *runtime.Scheme, obj runtime.Object, gv schema.GroupVersion) schema.GroupVersionKind {
	t.Helper()
	gvks, _, err := s.ObjectKinds(obj)
	if err != nil {
		t.Fatal(err)
	}
	for _, gvk := range gvks {
		if gvk.GroupVersion() == gv {
			return gvk
		}
	}
	t.Fatalf("%T is not registered in %s", obj, gv)
	return schema.GroupVersionKind{}
}

func TestEveryKindHasAnInternalForm(t *testing.T) {
	t.Parallel()
	s := All().NewScheme()
	for gvk := range s.AllKnownTypes() {
		if gvk.Version == runtime.APIVersionInternal || isMeta(s, gvk) {
			continue
		}
		if internal := gvk.GroupKind().WithVersion(runtime.APIVersionInternal); !s.Recognizes(internal) {
			t.Errorf("%s has no internal form", gvk)
		}
	}
	for _, kind := range []string{"Event", "EventList"} {
		obj, err := s.New(schema.GroupVersionKind{Group: "events.k8s.io", Version: runtime.APIVersionInternal, Kind: kind})
		if err != nil {
			t.Fatal(err)
		}
		if got := fmt.Sprintf("%T", obj); !strings.HasPrefix(got, "*v1.Event") {
			t.Errorf("%s: %s", kind, got)
		}
		if _, ok := obj.(*eventsv1.Event); ok {
			t.Error("events are stored in their newer form")
		}
	}
}

// isMeta reports whether the kind belongs to all groups: list options, watch events and the like.
func isMeta(s *runtime.Scheme, gvk schema.GroupVersionKind) bool {
	return s.AllKnownTypes()[gvk].PkgPath() == "k8s.io/apimachinery/pkg/apis/meta/v1"
}

func TestPublishedSchemeHasNoInternalForms(t *testing.T) {
	t.Parallel()
	published := All().NewPublishedScheme()
	for gvk := range published.AllKnownTypes() {
		if gvk.Version == runtime.APIVersionInternal && !isMeta(published, gvk) {
			t.Errorf("%s is published", gvk)
		}
	}
	namer := apiopenapi.NewDefinitionNamer(published)
	definitions := openapi.GetOpenAPIDefinitions(func(path string) spec.Ref { return spec.Ref{} })
	named := map[string]bool{}
	for goName := range definitions {
		if strings.HasSuffix(goName, ".InternalEvent") {
			continue // generated with its package; no path refers to it
		}
		_, extensions := namer.GetDefinitionName(goName)
		text := fmt.Sprint(extensions)
		if strings.Contains(text, runtime.APIVersionInternal) || strings.Contains(goName, runtime.APIVersionInternal) {
			t.Errorf("%s: %s", goName, text)
		}
		for gvk := range published.AllKnownTypes() {
			if strings.Contains(text, fmt.Sprintf("group:%s kind:%s version:%s]", gvk.Group, gvk.Kind, gvk.Version)) {
				named[gvk.String()] = true
			}
		}
	}
	for gvk := range published.AllKnownTypes() {
		if gvk.Version != runtime.APIVersionInternal && !isMeta(published, gvk) && !named[gvk.String()] {
			t.Errorf("%s is named in no definition, so kubectl explain and apply do not know it", gvk)
		}
	}
}

func TestFieldLabels(t *testing.T) {
	t.Parallel()
	s := All().NewScheme()
	for _, test := range []struct {
		gvk         schema.GroupVersionKind
		label, want string // "" is refused
	}{
		{corev1.SchemeGroupVersion.WithKind("Pod"), "metadata.name", "metadata.name"},
		{corev1.SchemeGroupVersion.WithKind("Pod"), "spec.nodeName", "spec.nodeName"},
		{corev1.SchemeGroupVersion.WithKind("Pod"), "spec.serviceAccountName", "spec.serviceAccountName"},
		{corev1.SchemeGroupVersion.WithKind("Pod"), "spec.nosuch", ""},
		{corev1.SchemeGroupVersion.WithKind("Secret"), "type", "type"},
		{corev1.SchemeGroupVersion.WithKind("Secret"), "data", ""},
		{corev1.SchemeGroupVersion.WithKind("ServiceAccount"), "metadata.namespace", "metadata.namespace"},
		{corev1.SchemeGroupVersion.WithKind("ServiceAccount"), "secrets", ""},
		{eventsv1.SchemeGroupVersion.WithKind("Event"), "regarding.name", "involvedObject.name"},
		{eventsv1.SchemeGroupVersion.WithKind("Event"), "reportingController", "reportingComponent"},
		{eventsv1.SchemeGroupVersion.WithKind("Event"), "involvedObject.name", ""},
		{corev1.SchemeGroupVersion.WithKind("Event"), "involvedObject.name", "involvedObject.name"},
		{corev1.SchemeGroupVersion.WithKind("Event"), "regarding.name", ""},
	} {
		label, value, err := s.ConvertFieldLabel(test.gvk, test.label, "v")
		if label != test.want || (err == nil) != (test.want != "") || err == nil && value != "v" {
			t.Errorf("%s %s: got %q=%q, %v, want %q", test.gvk.Kind, test.label, label, value, err, test.want)
		}
	}
}

// TestFieldLabelsHaveValues checks that each accepted label is a field that exists. Otherwise a selector would silently
// match nothing.
func TestFieldLabelsHaveValues(t *testing.T) {
	t.Parallel()
	known := map[string]fields.Set{
		"pods": pod.Fields(&corev1.Pod{}), "nodes": node.Fields(&corev1.Node{}), "namespaces": namespace.Fields(&corev1.Namespace{}),
		"secrets": secret.Fields(&corev1.Secret{}), "events": event.Fields(&corev1.Event{}),
		"certificatesigningrequests": certificatesigningrequest.Fields(&certificatesv1.CertificateSigningRequest{}),
	}
	met := map[string]bool{}
	for _, e := range All().entries() {
		if e.Stored == nil {
			continue
		}
		for label, stored := range e.Stored.labels(e.Resource, All()) {
			// Kubernetes too accepts status.podIPs and has no values for it. The library adds the fields of the
			// metadata.
			if !known[e.Name].Has(stored) && label != "status.podIPs" && !slices.Contains(metaLabels, label) {
				t.Errorf("%s: %s, stored as %s, has no value", e.groupResource(), label, stored)
			}
			met[e.Name] = met[e.Name] || !slices.Contains(metaLabels, label)
		}
	}
	for resource := range known {
		if !met[resource] {
			t.Errorf("%s cannot be selected by any field", resource)
		}
	}
}

// TestEventsInBothForms decodes one form and encodes the other, as the server does with its one store.
func TestEventsInBothForms(t *testing.T) {
	t.Parallel()
	codecs := serializer.NewCodecFactory(All().NewScheme())
	for _, media := range codecs.SupportedMediaTypes() {
		t.Run(media.MediaType, func(t *testing.T) {
			t.Parallel()
			as := func(gv schema.GroupVersion) runtime.Codec {
				internal := schema.GroupVersion{Group: gv.Group, Version: runtime.APIVersionInternal}
				return codecs.CodecForVersions(media.Serializer, media.Serializer, gv, internal)
			}
			sent := &eventsv1.Event{
				ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "e"}, Reason: "Started", Note: "it runs", Type: "Normal",
				ReportingController: "example.com/agent", ReportingInstance: "agent-1", Action: "Start",
				Regarding: corev1.ObjectReference{Kind: "Pod", Namespace: "ns", Name: "p"},
			}
			data, err := runtime.Encode(serializerOnly(codecs, media, eventsv1.SchemeGroupVersion), sent)
			if err != nil {
				t.Fatal(err)
			}
			stored, err := runtime.Decode(as(eventsv1.SchemeGroupVersion), data)
			if err != nil {
				t.Fatal(err)
			}
			kept, ok := stored.(*corev1.Event)
			if !ok || kept.Message != "it runs" || kept.InvolvedObject.Name != "p" || kept.ReportingController != "example.com/agent" {
				t.Fatalf("stored as %T %+v", stored, stored)
			}
			data, err = runtime.Encode(as(corev1.SchemeGroupVersion), kept)
			if err != nil {
				t.Fatal(err)
			}
			old, err := runtime.Decode(as(corev1.SchemeGroupVersion), data)
			if err != nil || old.(*corev1.Event).Message != "it runs" {
				t.Fatalf("core form: %+v, %v", old, err)
			}
			data, err = runtime.Encode(as(eventsv1.SchemeGroupVersion), kept)
			if err != nil {
				t.Fatal(err)
			}
			back, _, err := codecs.UniversalDeserializer().Decode(data, nil, nil)
			if err != nil {
				t.Fatal(err)
			}
			got, ok := back.(*eventsv1.Event)
			if !ok || got.Note != "it runs" || got.Regarding.Name != "p" || got.ReportingInstance != "agent-1" || got.Action != "Start" {
				t.Errorf("answered as %T %+v", back, back)
			}
		})
	}
}

// serializerOnly encodes without conversion, as a client does.
func serializerOnly(codecs interface {
	EncoderForVersion(runtime.Encoder, runtime.GroupVersioner) runtime.Encoder
}, media runtime.SerializerInfo, gv schema.GroupVersion) runtime.Encoder {
	return codecs.EncoderForVersion(media.Serializer, gv)
}
