package namespace_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"lanyard.dev/internal/apiserver/registry/fieldtest"
	"lanyard.dev/internal/apiserver/registry/namespace"
)

var now = time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)

func valid() *corev1.Namespace {
	return &corev1.Namespace{
		ObjectMeta: metav1.ObjectMeta{Name: "shop", ResourceVersion: "1", UID: "u"},
		Spec:       corev1.NamespaceSpec{Finalizers: []corev1.FinalizerName{corev1.FinalizerKubernetes}},
		Status:     corev1.NamespaceStatus{Phase: corev1.NamespaceActive},
	}
}

func TestValidate(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name   string
		mutate func(*corev1.Namespace)
		want   []fieldtest.Fault
	}{
		{"valid", func(*corev1.Namespace) {}, nil},
		{"qualified finalizer", func(ns *corev1.Namespace) { ns.Spec.Finalizers = []corev1.FinalizerName{"example.com/x", "orphan"} }, nil},
		{"no name", func(ns *corev1.Namespace) { ns.Name = "" },
			[]fieldtest.Fault{fieldtest.Required("metadata.name", "name or generateName is required")}},
		{"dotted name", func(ns *corev1.Namespace) { ns.Name = "a.b" },
			[]fieldtest.Fault{fieldtest.Invalid("metadata.name", "must not contain dots")}},
		{"long name", func(ns *corev1.Namespace) { ns.Name = strings.Repeat("a", 64) },
			[]fieldtest.Fault{fieldtest.Invalid("metadata.name", "must be no more than 63")}},
		{"label", func(ns *corev1.Namespace) { ns.Labels = map[string]string{"a": "-"} },
			[]fieldtest.Fault{fieldtest.Invalid("metadata.labels", "a valid label must be")}},
		{"annotations", func(ns *corev1.Namespace) {
			ns.Annotations = map[string]string{"a": strings.Repeat("x", 256<<10)}
		}, []fieldtest.Fault{fieldtest.TooLong("metadata.annotations", "262144 bytes")}},
		{"unknown finalizer", func(ns *corev1.Namespace) { ns.Spec.Finalizers = []corev1.FinalizerName{"mine"} },
			[]fieldtest.Fault{fieldtest.Invalid("spec.finalizers", "neither a standard finalizer name")}},
		{"malformed finalizer", func(ns *corev1.Namespace) { ns.Spec.Finalizers = []corev1.FinalizerName{"a/b/c"} },
			[]fieldtest.Fault{fieldtest.Invalid("spec.finalizers", "a valid label key must consist of")}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			ns := valid()
			test.mutate(ns)
			fieldtest.Check(t, namespace.Validate(ns), test.want...)
		})
	}
}

func TestValidateUpdates(t *testing.T) {
	t.Parallel()
	terminating := func(ns *corev1.Namespace) {
		ns.DeletionTimestamp = &metav1.Time{Time: now}
		ns.Status.Phase = corev1.NamespaceTerminating
	}
	for _, test := range []struct {
		name     string
		validate func(updated, old *corev1.Namespace) field.ErrorList
		both     func(*corev1.Namespace)
		mutate   func(*corev1.Namespace)
		want     []fieldtest.Fault
	}{
		{"label", namespace.ValidateUpdate, nil, func(ns *corev1.Namespace) { ns.Labels = map[string]string{"a": "b"} }, nil},
		{"uid", namespace.ValidateUpdate, nil, func(ns *corev1.Namespace) { ns.UID = "other" },
			[]fieldtest.Fault{fieldtest.Invalid("metadata.uid", "field is immutable")}},
		{"no version", namespace.ValidateUpdate, nil, func(ns *corev1.Namespace) { ns.ResourceVersion = "" },
			[]fieldtest.Fault{fieldtest.Invalid("metadata.resourceVersion", "must be specified for an update")}},
		{"finalizer while terminating", namespace.ValidateUpdate, terminating, func(ns *corev1.Namespace) { ns.Finalizers = []string{"a.b/c"} },
			[]fieldtest.Fault{fieldtest.Forbidden("metadata.finalizers", "no new finalizers can be added")}},
		{"active", namespace.ValidateStatusUpdate, nil, func(*corev1.Namespace) {}, nil},
		{"terminating", namespace.ValidateStatusUpdate, terminating, func(*corev1.Namespace) {}, nil},
		{"too early", namespace.ValidateStatusUpdate, nil, func(ns *corev1.Namespace) { ns.Status.Phase = corev1.NamespaceTerminating },
			[]fieldtest.Fault{fieldtest.Invalid("status.Phase", "may only be 'Active' if `deletionTimestamp` is empty")}},
		{"too late", namespace.ValidateStatusUpdate, terminating, func(ns *corev1.Namespace) { ns.Status.Phase = corev1.NamespaceActive },
			[]fieldtest.Fault{fieldtest.Invalid("status.Phase", "may only be 'Terminating' if `deletionTimestamp` is not empty")}},
		{"finalized", namespace.ValidateFinalizeUpdate, terminating, func(ns *corev1.Namespace) { ns.Spec.Finalizers = nil }, nil},
		{"finalize with junk", namespace.ValidateFinalizeUpdate, nil, func(ns *corev1.Namespace) {
			ns.Spec.Finalizers = append(ns.Spec.Finalizers, "mine")
		}, []fieldtest.Fault{fieldtest.Invalid("spec.finalizers[1]", "neither a standard finalizer name")}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			old := valid()
			if test.both != nil {
				test.both(old)
			}
			updated := old.DeepCopy()
			test.mutate(updated)
			fieldtest.Check(t, test.validate(updated, old), test.want...)
		})
	}
}

func TestDefaults(t *testing.T) {
	t.Parallel()
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "shop", Labels: map[string]string{corev1.LabelMetadataName: "forged"}}}
	namespace.SetDefaults(ns)
	want := map[string]string{"kubernetes.io/metadata.name": "shop"}
	if diff := cmp.Diff(want, ns.Labels); diff != "" {
		t.Errorf("labels (-want +got):\n%s", diff)
	}
	if len(ns.Spec.Finalizers) != 0 {
		t.Errorf("defaulting added finalizers %v, which an ending namespace must be able to lose", ns.Spec.Finalizers)
	}
	unnamed := &corev1.Namespace{}
	namespace.SetDefaults(unnamed)
	if len(unnamed.Labels) != 0 {
		t.Errorf("labels of a namespace without a name: %v", unnamed.Labels)
	}
}

func TestPrepareForCreate(t *testing.T) {
	t.Parallel()
	ns := valid()
	ns.Status.Phase = corev1.NamespaceTerminating
	ns.Spec.Finalizers = []corev1.FinalizerName{"example.com/x"}
	namespace.PrepareForCreate(ns)
	namespace.PrepareForCreate(ns)
	if got, want := ns.Status, (corev1.NamespaceStatus{Phase: corev1.NamespaceActive}); !cmp.Equal(got, want) {
		t.Errorf("status = %+v, want %+v", got, want)
	}
	if diff := cmp.Diff([]corev1.FinalizerName{"example.com/x", "kubernetes"}, ns.Spec.Finalizers); diff != "" {
		t.Errorf("finalizers (-want +got):\n%s", diff)
	}
	if ns.Labels[corev1.LabelMetadataName] != "shop" {
		t.Errorf("labels = %v, want the name among them", ns.Labels)
	}
}

func TestRowAndFields(t *testing.T) {
	t.Parallel()
	ns := valid()
	ns.CreationTimestamp = metav1.NewTime(now.Add(-26 * time.Hour))
	fieldtest.CheckRow(t, namespace.Columns, namespace.Row(ns, now), "shop", "Active", "26h")
	want := fields.Set{"metadata.name": "shop", "name": "shop", "status.phase": "Active"}
	if diff := cmp.Diff(want, namespace.Fields(ns)); diff != "" {
		t.Errorf("fields (-want +got):\n%s", diff)
	}
}
