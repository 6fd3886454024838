package rbac_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"lanyard.dev/internal/apiserver/registry"
	"lanyard.dev/internal/apiserver/registry/fieldtest"
	"lanyard.dev/internal/apiserver/registry/rbac"
	"lanyard.dev/internal/rbac/objects"
)

var now = time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)

func TestRows(t *testing.T) {
	t.Parallel()
	meta := &metav1.ObjectMeta{Name: "b", CreationTimestamp: metav1.NewTime(now.Add(-time.Hour).In(time.FixedZone("", 7200)))}
	if diff := cmp.Diff([]any{"b", "2026-05-01T11:00:00Z"}, rbac.RoleRow(&rbacv1.Role{ObjectMeta: *meta}, now)); diff != "" {
		t.Errorf("role (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]any{"b", "<unknown>"}, rbac.RoleRow(&rbacv1.Role{ObjectMeta: metav1.ObjectMeta{Name: "b"}}, now)); diff != "" {
		t.Errorf("role without time (-want +got):\n%s", diff)
	}
	subjects := []rbacv1.Subject{
		{Kind: "User", Name: "jane"}, {Kind: "Group", Name: "ops"}, {Kind: "User", Name: "joe"},
		{Kind: "ServiceAccount", Namespace: "ci", Name: "bot"}, {Kind: "Robot", Name: "r"},
	}
	row := rbac.RoleBindingRow(&rbacv1.RoleBinding{
		ObjectMeta: *meta, RoleRef: rbacv1.RoleRef{Kind: "ClusterRole", Name: "view"}, Subjects: subjects,
	}, now)
	if diff := cmp.Diff([]any{"b", "ClusterRole/view", "60m", "jane, joe", "ops", "ci/bot"}, row); diff != "" {
		t.Errorf("binding (-want +got):\n%s", diff)
	}
	if got, want := len(row), len(rbac.RoleBindingColumns); got != want {
		t.Errorf("%d cells for %d columns", got, want)
	}
	if got, want := len(rbac.RoleRow(&rbacv1.Role{ObjectMeta: *meta}, now)), len(rbac.RoleColumns); got != want {
		t.Errorf("%d cells for %d columns", got, want)
	}
}

func validRole() *rbacv1.Role {
	return &rbacv1.Role{
		ObjectMeta: metav1.ObjectMeta{Name: "pod-reader", Namespace: "shop", ResourceVersion: "1"},
		Rules:      []rbacv1.PolicyRule{{Verbs: []string{"get"}, APIGroups: []string{""}, Resources: []string{"pods"}}},
	}
}

func TestRoleValidate(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name   string
		mutate func(*rbacv1.Role)
		want   []fieldtest.Fault
	}{
		{"valid", func(*rbacv1.Role) {}, nil},
		{"no rules", func(r *rbacv1.Role) { r.Rules = nil }, nil},
		{"no namespace", func(r *rbacv1.Role) { r.Namespace = "" }, []fieldtest.Fault{fieldtest.Required("metadata.namespace", "")}},
		{"second rule", func(r *rbacv1.Role) {
			r.Rules = append(r.Rules, rbacv1.PolicyRule{Verbs: []string{"get"}, NonResourceURLs: []string{"/"}})
		}, []fieldtest.Fault{fieldtest.Invalid("rules[1].nonResourceURLs", "namespaced rules cannot apply to non-resource URLs")}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			r := validRole()
			test.mutate(r)
			fieldtest.Check(t, objects.ValidateRole(r), test.want...)
			fieldtest.Check(t, objects.ValidateRoleUpdate(r, r), test.want...)
		})
	}
	unversioned := validRole()
	unversioned.ResourceVersion = ""
	fieldtest.Check(t, objects.ValidateRoleUpdate(unversioned, validRole()),
		fieldtest.Invalid("metadata.resourceVersion", "must be specified for an update"))
}

func TestRoleRowAndFields(t *testing.T) {
	t.Parallel()
	r := validRole()
	r.CreationTimestamp = metav1.Date(2026, 5, 1, 10, 0, 0, 0, time.UTC)
	fieldtest.CheckRow(t, rbac.RoleColumns, rbac.RoleRow(r, time.Time{}), "pod-reader", "2026-05-01T10:00:00Z")
	want := fields.Set{"metadata.name": "pod-reader", "metadata.namespace": "shop"}
	if diff := cmp.Diff(want, registry.NamespacedFields(r)); diff != "" {
		t.Errorf("fields (-want +got):\n%s", diff)
	}
}

const selectors = "aggregationRule.clusterRoleSelectors"

func validClusterRole() *rbacv1.ClusterRole {
	return &rbacv1.ClusterRole{
		ObjectMeta: metav1.ObjectMeta{Name: "system:metrics", ResourceVersion: "1"},
		Rules:      []rbacv1.PolicyRule{{Verbs: []string{"get"}, NonResourceURLs: []string{"/metrics"}}},
	}
}

func aggregate(s ...metav1.LabelSelector) func(*rbacv1.ClusterRole) {
	return func(r *rbacv1.ClusterRole) { r.AggregationRule = &rbacv1.AggregationRule{ClusterRoleSelectors: s} }
}

func TestClusterRoleValidate(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name   string
		mutate func(*rbacv1.ClusterRole)
		want   []fieldtest.Fault
	}{
		{"valid", func(*rbacv1.ClusterRole) {}, nil},
		{"aggregated", aggregate(metav1.LabelSelector{MatchLabels: map[string]string{"a": "b"}}), nil},
		{"namespace", func(r *rbacv1.ClusterRole) { r.Namespace = "shop" },
			[]fieldtest.Fault{fieldtest.Forbidden("metadata.namespace", "not allowed on this type")}},
		{"rule", func(r *rbacv1.ClusterRole) { r.Rules[0].Verbs = nil },
			[]fieldtest.Fault{fieldtest.Required("rules[0].verbs", "verbs must contain at least one value")}},
		{"no selectors", aggregate(),
			[]fieldtest.Fault{fieldtest.Required(selectors, "at least one clusterRoleSelector required if aggregationRule is non-nil")}},
		{"label value", aggregate(metav1.LabelSelector{}, metav1.LabelSelector{MatchLabels: map[string]string{"a": "b c"}}), []fieldtest.Fault{
			fieldtest.Invalid(selectors+"[1].matchLabels", "a valid label must be"),
			fieldtest.Invalid(selectors+"[1]", "invalid label selector."),
		}},
		{"operator", aggregate(metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{{Key: "a", Operator: "Near"}}}), []fieldtest.Fault{
			fieldtest.Invalid(selectors+"[0].matchExpressions[0].operator", "not a valid selector operator"),
			fieldtest.Invalid(selectors+"[0]", "invalid label selector."),
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			r := validClusterRole()
			test.mutate(r)
			fieldtest.Check(t, objects.ValidateClusterRole(r), test.want...)
			old := validClusterRole()
			old.Namespace = r.Namespace
			fieldtest.Check(t, objects.ValidateClusterRoleUpdate(r, old), test.want...)
		})
	}
}

func TestClusterRoleUpdateKeepsAnOldLabelValue(t *testing.T) {
	t.Parallel()
	old := validClusterRole()
	aggregate(metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{{Key: "a", Operator: "In", Values: []string{"b c"}}}})(old)
	errs := objects.ValidateClusterRoleUpdate(old.DeepCopy(), old)
	fieldtest.Check(t, errs, fieldtest.Invalid(selectors+"[0]", "invalid label selector."))
}

func TestClusterRoleRowAndFields(t *testing.T) {
	t.Parallel()
	r := validClusterRole()
	fieldtest.CheckRow(t, rbac.ClusterRoleColumns, rbac.ClusterRoleRow(r, time.Time{}), "system:metrics", "<unknown>")
	if diff := cmp.Diff(fields.Set{"metadata.name": "system:metrics"}, registry.ClusterFields(r)); diff != "" {
		t.Errorf("fields (-want +got):\n%s", diff)
	}
}

// binding is a binding of one of the two kinds, with pointers to its parts.
type binding struct {
	object   runtime.Object
	meta     *metav1.ObjectMeta
	ref      *rbacv1.RoleRef
	subjects *[]rbacv1.Subject
}

// bindingKind are the functions of a kind. new returns a valid binding with defaults.
type bindingKind struct {
	name     string
	new      func() binding
	validate func(runtime.Object) field.ErrorList
	update   func(updated, old runtime.Object) field.ErrorList
	row      func(runtime.Object) []any
	columns  []metav1.TableColumnDefinition
	fields   func(runtime.Object) fields.Set
	want     fields.Set
}

func bindingKinds() []bindingKind {
	ref := rbacv1.RoleRef{Kind: "ClusterRole", Name: "view"}
	subjects := func() []rbacv1.Subject {
		return []rbacv1.Subject{{Kind: "Group", Name: "ops"}, {Kind: "ServiceAccount", Namespace: "ci", Name: "bot"}}
	}
	ofRole := func(obj runtime.Object) *rbacv1.RoleBinding { return obj.(*rbacv1.RoleBinding) }
	ofClusterRole := func(obj runtime.Object) *rbacv1.ClusterRoleBinding { return obj.(*rbacv1.ClusterRoleBinding) }
	return []bindingKind{
		{
			name: "RoleBinding",
			new: func() binding {
				b := &rbacv1.RoleBinding{ObjectMeta: metav1.ObjectMeta{Name: "readers", Namespace: "shop", ResourceVersion: "1"}, RoleRef: ref, Subjects: subjects()}
				objects.SetRoleBindingDefaults(b)
				return binding{b, &b.ObjectMeta, &b.RoleRef, &b.Subjects}
			},
			validate: func(b runtime.Object) field.ErrorList { return objects.ValidateRoleBinding(ofRole(b)) },
			update: func(updated, old runtime.Object) field.ErrorList {
				return objects.ValidateRoleBindingUpdate(ofRole(updated), ofRole(old))
			},
			row: func(b runtime.Object) []any { return rbac.RoleBindingRow(ofRole(b), now) }, columns: rbac.RoleBindingColumns,
			fields: func(b runtime.Object) fields.Set { return registry.NamespacedFields(ofRole(b)) },
			want:   fields.Set{"metadata.name": "readers", "metadata.namespace": "shop"},
		},
		{
			name: "ClusterRoleBinding",
			new: func() binding {
				b := &rbacv1.ClusterRoleBinding{ObjectMeta: metav1.ObjectMeta{Name: "readers", ResourceVersion: "1"}, RoleRef: ref, Subjects: subjects()}
				objects.SetClusterRoleBindingDefaults(b)
				return binding{b, &b.ObjectMeta, &b.RoleRef, &b.Subjects}
			},
			validate: func(b runtime.Object) field.ErrorList { return objects.ValidateClusterRoleBinding(ofClusterRole(b)) },
			update: func(updated, old runtime.Object) field.ErrorList {
				return objects.ValidateClusterRoleBindingUpdate(ofClusterRole(updated), ofClusterRole(old))
			},
			row: func(b runtime.Object) []any { return rbac.ClusterRoleBindingRow(ofClusterRole(b), now) }, columns: rbac.ClusterRoleBindingColumns,
			fields: func(b runtime.Object) fields.Set { return registry.ClusterFields(ofClusterRole(b)) },
			want:   fields.Set{"metadata.name": "readers"},
		},
	}
}

func TestValidateBindings(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name   string
		mutate func(binding)
		// role and cluster are the expected faults of a RoleBinding and of a ClusterRoleBinding.
		role, cluster []fieldtest.Fault
	}{
		{"defaulted", func(binding) {}, nil, nil},
		{"no subjects", func(b binding) { *b.subjects = nil }, nil, nil},
		{"role", func(b binding) { b.ref.Kind = "Role" },
			nil, []fieldtest.Fault{fieldtest.NotSupported("roleRef.kind", `supported values: "ClusterRole"`)}},
		{"account without namespace", func(b binding) { (*b.subjects)[1].Namespace = "" },
			nil, []fieldtest.Fault{fieldtest.Required("subjects[1].namespace", "")}},
		{"no namespace", func(b binding) { b.meta.Namespace = "" },
			[]fieldtest.Fault{fieldtest.Required("metadata.namespace", "")}, nil},
		{"kind of role", func(b binding) { b.ref.Kind = "Group" },
			[]fieldtest.Fault{fieldtest.NotSupported("roleRef.kind", "ClusterRole")}, []fieldtest.Fault{fieldtest.NotSupported("roleRef.kind", "ClusterRole")}},
		{"subject", func(b binding) { (*b.subjects)[1].Name = "" },
			[]fieldtest.Fault{fieldtest.Required("subjects[1].name", "")}, []fieldtest.Fault{fieldtest.Required("subjects[1].name", "")}},
	} {
		for i, kind := range bindingKinds() {
			t.Run(kind.name+"/"+test.name, func(t *testing.T) {
				t.Parallel()
				b := kind.new()
				test.mutate(b)
				want := [][]fieldtest.Fault{test.role, test.cluster}[i]
				fieldtest.Check(t, kind.validate(b.object), want...)
				fieldtest.Check(t, kind.update(b.object, b.object), want...)
			})
		}
	}
}

func TestBindingUpdateKeepsRoleRef(t *testing.T) {
	t.Parallel()
	for _, kind := range bindingKinds() {
		updated := kind.new()
		*updated.subjects = nil
		fieldtest.Check(t, kind.update(updated.object, kind.new().object))
		updated.ref.Name = "cluster-admin"
		fieldtest.Check(t, kind.update(updated.object, kind.new().object), fieldtest.Invalid("roleRef", "cannot change roleRef"))
	}
}

func TestBindingRowsAndFields(t *testing.T) {
	t.Parallel()
	for _, kind := range bindingKinds() {
		b := kind.new()
		b.meta.CreationTimestamp = metav1.NewTime(now.Add(-48 * time.Hour))
		row := kind.row(b.object)
		if diff := cmp.Diff([]any{"readers", "ClusterRole/view", "2d", "", "ops", "ci/bot"}, row); diff != "" {
			t.Errorf("%s: row (-want +got):\n%s", kind.name, diff)
		}
		if len(row) != len(kind.columns) {
			t.Errorf("%s: %d cells for %d columns", kind.name, len(row), len(kind.columns))
		}
		if diff := cmp.Diff(kind.want, kind.fields(b.object)); diff != "" {
			t.Errorf("%s: fields (-want +got):\n%s", kind.name, diff)
		}
	}
}
