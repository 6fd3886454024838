package serviceaccount_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"

	"lanyard.dev/internal/apiserver/registry"
	"lanyard.dev/internal/apiserver/registry/fieldtest"
	"lanyard.dev/internal/apiserver/registry/serviceaccount"
)

var now = time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)

func valid() *corev1.ServiceAccount {
	return &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "build.bot", Namespace: "ci", ResourceVersion: "1", UID: "u"}}
}

func TestValidate(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name   string
		mutate func(*corev1.ServiceAccount)
		want   []fieldtest.Fault
	}{
		{"valid", func(*corev1.ServiceAccount) {}, nil},
		{"secrets that need not exist", func(a *corev1.ServiceAccount) { a.Secrets = []corev1.ObjectReference{{Name: "gone"}} }, nil},
		{"no namespace", func(a *corev1.ServiceAccount) { a.Namespace = "" },
			[]fieldtest.Fault{fieldtest.Required("metadata.namespace", "")}},
		{"colon", func(a *corev1.ServiceAccount) { a.Name = "a:b" },
			[]fieldtest.Fault{fieldtest.Invalid("metadata.name", "a lowercase RFC 1123 subdomain")}},
		{"long", func(a *corev1.ServiceAccount) { a.Name = strings.Repeat("a", 254) },
			[]fieldtest.Fault{fieldtest.Invalid("metadata.name", "no more than 253")}},
		{"generateName", func(a *corev1.ServiceAccount) { a.GenerateName = "A_" },
			[]fieldtest.Fault{fieldtest.Invalid("metadata.generateName", "subdomain")}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			account := valid()
			test.mutate(account)
			fieldtest.Check(t, serviceaccount.Validate(account), test.want...)
		})
	}
}

func TestValidateUpdate(t *testing.T) {
	t.Parallel()
	updated := valid()
	mount := false
	updated.AutomountServiceAccountToken = &mount
	fieldtest.Check(t, serviceaccount.ValidateUpdate(updated, valid()))
	updated.UID = "forged"
	updated.Annotations = map[string]string{"a b": ""}
	fieldtest.Check(t, serviceaccount.ValidateUpdate(updated, valid()),
		fieldtest.Invalid("metadata.uid", "field is immutable"),
		fieldtest.Invalid("metadata.annotations", "name part must consist of"))
}

func TestRowAndFields(t *testing.T) {
	t.Parallel()
	account := valid()
	fieldtest.CheckRow(t, serviceaccount.Columns, serviceaccount.Row(account, now), "build.bot", "<unknown>")
	want := fields.Set{"metadata.name": "build.bot", "metadata.namespace": "ci"}
	if diff := cmp.Diff(want, registry.NamespacedFields(account)); diff != "" {
		t.Errorf("fields (-want +got):\n%s", diff)
	}
}
