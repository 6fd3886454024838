package configmap_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/utils/ptr"

	"lanyard.dev/internal/apiserver/registry"
	"lanyard.dev/internal/apiserver/registry/configmap"
	"lanyard.dev/internal/apiserver/registry/fieldtest"
)

var now = time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)

func valid() *corev1.ConfigMap {
	return &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Name: "kube-root-ca.crt", Namespace: "shop", ResourceVersion: "1"},
		Data:       map[string]string{"ca.crt": "PEM"},
		BinaryData: map[string][]byte{"blob": {0xff}},
	}
}

func TestValidate(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name   string
		mutate func(*corev1.ConfigMap)
		want   []fieldtest.Fault
	}{
		{"valid", func(*corev1.ConfigMap) {}, nil},
		{"empty", func(cm *corev1.ConfigMap) { cm.Data, cm.BinaryData = nil, nil }, nil},
		{"name", func(cm *corev1.ConfigMap) { cm.Name = "a_b" },
			[]fieldtest.Fault{fieldtest.Invalid("metadata.name", "RFC 1123 subdomain")}},
		{"key", func(cm *corev1.ConfigMap) { cm.Data["a/b"] = "" },
			[]fieldtest.Fault{fieldtest.Invalid("data[a/b]", "a valid config key must consist of")}},
		{"binary key", func(cm *corev1.ConfigMap) { cm.BinaryData["."] = nil },
			[]fieldtest.Fault{fieldtest.Invalid("binaryData[.]", "must not be '.'")}},
		{"both", func(cm *corev1.ConfigMap) { cm.Data["blob"] = "" },
			[]fieldtest.Fault{fieldtest.Invalid("data[blob]", "duplicate of key present in binaryData")}},
		{"largest", func(cm *corev1.ConfigMap) {
			cm.Data, cm.BinaryData = map[string]string{"a": strings.Repeat("x", 1<<19)}, map[string][]byte{"b": make([]byte, 1<<19)}
		}, nil},
		{"too large together", func(cm *corev1.ConfigMap) {
			cm.Data, cm.BinaryData = map[string]string{"a": strings.Repeat("x", 1<<19)}, map[string][]byte{"b": make([]byte, 1<<19+1)}
		}, []fieldtest.Fault{fieldtest.TooLong("[]", "may not be more than 1048576 bytes")}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			cm := valid()
			test.mutate(cm)
			fieldtest.Check(t, configmap.Validate(cm), test.want...)
		})
	}
}

func TestValidateUpdate(t *testing.T) {
	t.Parallel()
	forbidden := func(path string) []fieldtest.Fault {
		return []fieldtest.Fault{fieldtest.Forbidden(path, "field is immutable when `immutable` is set")}
	}
	for _, test := range []struct {
		name   string
		sealed bool
		mutate func(*corev1.ConfigMap)
		want   []fieldtest.Fault
	}{
		{"data", false, func(cm *corev1.ConfigMap) { cm.Data = nil }, nil},
		{"unset false", false, func(cm *corev1.ConfigMap) { cm.Immutable = nil }, nil},
		{"sealed annotation", true, func(cm *corev1.ConfigMap) { cm.Annotations = map[string]string{"a": "b"} }, nil},
		{"sealed data", true, func(cm *corev1.ConfigMap) { cm.Data["ca.crt"] = "other" }, forbidden("data")},
		{"sealed binary", true, func(cm *corev1.ConfigMap) { cm.BinaryData = nil }, forbidden("binaryData")},
		{"unseal", true, func(cm *corev1.ConfigMap) { cm.Immutable = nil }, forbidden("immutable")},
		{"namespace", false, func(cm *corev1.ConfigMap) { cm.Namespace = "other" },
			[]fieldtest.Fault{fieldtest.Invalid("metadata.namespace", "field is immutable")}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			old := valid()
			old.Immutable = ptr.To(test.sealed)
			updated := old.DeepCopy()
			test.mutate(updated)
			fieldtest.Check(t, configmap.ValidateUpdate(updated, old), test.want...)
		})
	}
}

func TestSealedEmptyMapMayBecomeNil(t *testing.T) {
	t.Parallel()
	old := valid()
	old.Immutable, old.Data = ptr.To(true), map[string]string{}
	updated := old.DeepCopy()
	updated.Data = nil
	fieldtest.Check(t, configmap.ValidateUpdate(updated, old))
}

func TestRowAndFields(t *testing.T) {
	t.Parallel()
	cm := valid()
	cm.CreationTimestamp = metav1.NewTime(now.Add(-5 * time.Minute))
	fieldtest.CheckRow(t, configmap.Columns, configmap.Row(cm, now), "kube-root-ca.crt", int64(2), "5m")
	want := fields.Set{"metadata.name": "kube-root-ca.crt", "metadata.namespace": "shop"}
	if diff := cmp.Diff(want, registry.NamespacedFields(cm)); diff != "" {
		t.Errorf("fields (-want +got):\n%s", diff)
	}
}
