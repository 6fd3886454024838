package lease_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/utils/ptr"

	"lanyard.dev/internal/apiserver/registry"
	"lanyard.dev/internal/apiserver/registry/fieldtest"
	"lanyard.dev/internal/apiserver/registry/lease"
)

var now = time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)

func valid() *coordinationv1.Lease {
	return &coordinationv1.Lease{
		ObjectMeta: metav1.ObjectMeta{Name: "node-1", Namespace: "kube-node-lease", ResourceVersion: "1"},
		Spec: coordinationv1.LeaseSpec{
			HolderIdentity: ptr.To("node-1"), LeaseDurationSeconds: ptr.To[int32](40), LeaseTransitions: ptr.To[int32](0),
		},
	}
}

func strategy(s string) *coordinationv1.CoordinatedLeaseStrategy {
	return ptr.To(coordinationv1.CoordinatedLeaseStrategy(s))
}

func TestValidate(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name   string
		mutate func(*coordinationv1.Lease)
		want   []fieldtest.Fault
	}{
		{"valid", func(*coordinationv1.Lease) {}, nil},
		{"empty spec", func(l *coordinationv1.Lease) { l.Spec = coordinationv1.LeaseSpec{} }, nil},
		{"name", func(l *coordinationv1.Lease) { l.Name = "A" },
			[]fieldtest.Fault{fieldtest.Invalid("metadata.name", "RFC 1123 subdomain")}},
		{"no duration", func(l *coordinationv1.Lease) { l.Spec.LeaseDurationSeconds = ptr.To[int32](0) },
			[]fieldtest.Fault{fieldtest.Invalid("spec.leaseDurationSeconds", "0: must be greater than 0")}},
		{"transitions", func(l *coordinationv1.Lease) { l.Spec.LeaseTransitions = ptr.To[int32](-1) },
			[]fieldtest.Fault{fieldtest.Invalid("spec.leaseTransitions", "-1: must be greater than or equal to 0")}},
		{"strategy", func(l *coordinationv1.Lease) {
			l.Spec.Strategy, l.Spec.PreferredHolder = strategy("OldestEmulationVersion"), ptr.To("b")
		}, nil},
		{"own strategy", func(l *coordinationv1.Lease) { l.Spec.Strategy = strategy("example.com/mine") }, nil},
		{"unknown strategy", func(l *coordinationv1.Lease) { l.Spec.Strategy = strategy("Newest") },
			[]fieldtest.Fault{fieldtest.NotSupported("spec.strategy", "OldestEmulationVersion")}},
		{"malformed strategy", func(l *coordinationv1.Lease) { l.Spec.Strategy = strategy("example.com/") },
			[]fieldtest.Fault{fieldtest.Invalid("spec.strategy", "name part")}},
		{"holder without strategy", func(l *coordinationv1.Lease) { l.Spec.PreferredHolder = ptr.To("b") },
			[]fieldtest.Fault{fieldtest.Forbidden("spec.preferredHolder", "may only be specified if `strategy` is defined")}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			l := valid()
			test.mutate(l)
			fieldtest.Check(t, lease.Validate(l), test.want...)
		})
	}
}

func TestValidateUpdate(t *testing.T) {
	t.Parallel()
	updated := valid()
	updated.Spec.HolderIdentity, updated.Spec.LeaseTransitions = ptr.To("node-2"), ptr.To[int32](1)
	fieldtest.Check(t, lease.ValidateUpdate(updated, valid()))
	updated.Spec.LeaseDurationSeconds = ptr.To[int32](-5)
	updated.ResourceVersion = ""
	fieldtest.Check(t, lease.ValidateUpdate(updated, valid()),
		fieldtest.Invalid("spec.leaseDurationSeconds", "must be greater than 0"),
		fieldtest.Invalid("metadata.resourceVersion", "must be specified for an update"))
}

func TestRowAndFields(t *testing.T) {
	t.Parallel()
	l := valid()
	l.CreationTimestamp = metav1.NewTime(now.Add(-400 * 24 * time.Hour))
	fieldtest.CheckRow(t, lease.Columns, lease.Row(l, now), "node-1", "node-1", "400d")
	if got := lease.Row(&coordinationv1.Lease{}, now)[1]; got != "" {
		t.Errorf("holder of a free lease = %q", got)
	}
	want := fields.Set{"metadata.name": "node-1", "metadata.namespace": "kube-node-lease"}
	if diff := cmp.Diff(want, registry.NamespacedFields(l)); diff != "" {
		t.Errorf("fields (-want +got):\n%s", diff)
	}
}
