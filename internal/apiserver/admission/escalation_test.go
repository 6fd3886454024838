package admission

import (
	"context"
	"errors"
	"strings"
	"testing"

	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"

	"lanyard.dev/internal/apiserver/authz"
	"lanyard.dev/internal/apiserver/outage"
	"lanyard.dev/internal/rbac"
)

func rule(verb, group, resource string, names ...string) rbacv1.PolicyRule {
	return rbacv1.PolicyRule{Verbs: []string{verb}, APIGroups: []string{group}, Resources: []string{resource}, ResourceNames: names}
}

var readPods = rule("get", "", "pods")

// rolePolicy has five users: reader may get pods in ns, cluster-reader in every namespace, boss may do everything,
// binder may bind the cluster role "root" in ns, and author may escalate roles in ns.
func rolePolicy() *rbac.Index {
	x := rbac.NewIndex()
	bind := func(name, namespace string, rules ...rbacv1.PolicyRule) {
		ref := rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: name}
		subjects := []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: "User", Name: name}}
		x.SetClusterRole(&rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: name}, Rules: rules})
		if namespace == "" {
			x.SetClusterRoleBinding(&rbacv1.ClusterRoleBinding{ObjectMeta: metav1.ObjectMeta{Name: name}, RoleRef: ref, Subjects: subjects})
			return
		}
		x.SetRoleBinding(&rbacv1.RoleBinding{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: namespace}, RoleRef: ref, Subjects: subjects})
	}
	bind("reader", "ns", readPods)
	bind("boss", "", everything...)
	bind("cluster-reader", "", readPods)
	bind("binder", "ns", rule("bind", rbacv1.GroupName, "clusterroles", "root"))
	bind("author", "ns", rule("escalate", rbacv1.GroupName, "roles"))
	return x
}

var storedRules = map[string][]rbacv1.PolicyRule{
	"ClusterRole//root": everything, "Role/ns/pods": {readPods}, "ClusterRole//pods": {readPods}, "ClusterRole//empty": nil,
}

func findRules(_ context.Context, kind, namespace, name string) ([]rbacv1.PolicyRule, error) {
	rules, ok := storedRules[kind+"/"+namespace+"/"+name]
	if !ok {
		return nil, apierrors.NewNotFound(rbacv1.Resource(strings.ToLower(kind)+"s"), name)
	}
	return rules, nil
}

func role(rules ...rbacv1.PolicyRule) *rbacv1.Role {
	return &rbacv1.Role{ObjectMeta: metav1.ObjectMeta{Name: "r", Namespace: "ns"}, Rules: rules}
}

func clusterRole(aggregate bool, rules ...rbacv1.PolicyRule) *rbacv1.ClusterRole {
	r := &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: "r"}, Rules: rules}
	if aggregate {
		r.AggregationRule = &rbacv1.AggregationRule{ClusterRoleSelectors: []metav1.LabelSelector{{MatchLabels: map[string]string{"a": "b"}}}}
	}
	return r
}

func labelled(r *rbacv1.ClusterRole) *rbacv1.ClusterRole {
	r.Labels = map[string]string{"rbac.authorization.k8s.io/aggregate-to-view": "true"}
	return r
}

// annotated adds the annotation that keeps default policy from being restored.
func annotated[T metav1.Object](obj T) T {
	obj.SetAnnotations(map[string]string{"rbac.authorization.kubernetes.io/autoupdate": "false"})
	return obj
}

// owned changes the fields that the garbage collector writes.
func owned[T metav1.Object](obj T) T {
	obj.SetOwnerReferences([]metav1.OwnerReference{{APIVersion: "v1", Kind: "ConfigMap", Name: "c", UID: "u"}})
	obj.SetFinalizers([]string{"foregroundDeletion"})
	obj.SetManagedFields([]metav1.ManagedFieldsEntry{{Manager: "m"}})
	return obj
}

func emptied(r *rbacv1.ClusterRole) *rbacv1.ClusterRole {
	r.AggregationRule.ClusterRoleSelectors = nil
	return r
}

func binding(kind, name string, subjects ...string) *rbacv1.RoleBinding {
	b := &rbacv1.RoleBinding{ObjectMeta: metav1.ObjectMeta{Name: "b", Namespace: "ns"}, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: kind, Name: name}}
	for _, s := range subjects {
		b.Subjects = append(b.Subjects, rbacv1.Subject{Kind: "User", APIGroup: rbacv1.GroupName, Name: s})
	}
	return b
}

func clusterBinding(name string) *rbacv1.ClusterRoleBinding {
	return &rbacv1.ClusterRoleBinding{ObjectMeta: metav1.ObjectMeta{Name: "b"}, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: name}}
}

func TestEscalation(t *testing.T) {
	t.Parallel()
	const held, missing, notAdmin = "", "attempting to grant RBAC permissions not currently held", "must have cluster-admin privileges"
	for _, c := range []struct {
		name     string
		who      string
		groups   []string
		obj, old runtime.Object
		want     string
	}{
		{"role of held rules", "reader", nil, role(readPods), nil, held},
		{"role without rules", "nobody", nil, role(), nil, held},
		{"role of other rules", "reader", nil, role(readPods, rule("list", "", "secrets")), nil, missing},
		{"wildcard is not held piece by piece", "reader", nil, role(rule("*", "", "pods")), nil, missing},
		{"narrower than held", "reader", nil, role(rule("get", "", "pods", "one")), nil, held},
		{"everything covers all", "boss", nil, role(rule("list", "", "secrets")), nil, held},
		{"escalate lets roles pass", "author", nil, role(rule("*", "*", "*")), nil, held},
		{"escalate in a namespace is not for cluster roles", "author", nil, clusterRole(false, readPods), nil, missing},
		{"held in a namespace is not held in the cluster", "reader", nil, clusterRole(false, readPods), nil, missing},
		{"update that changes nothing", "nobody", nil, role(rule("*", "*", "*")), role(rule("*", "*", "*")), held},
		{"annotation on a role that is not held", "nobody", nil, annotated(role(readPods)), role(readPods), missing},
		{"annotation on a role that is held", "reader", nil, annotated(role(readPods)), role(readPods), held},
		{"annotation by who may escalate", "author", nil, annotated(role(readPods)), role(readPods), held},
		{"annotation on a role without rules", "nobody", nil, annotated(role()), role(), held},
		{"owner and finalizers of a role that is not held", "nobody", nil, owned(role(readPods)), role(readPods), held},
		{"owner and rules", "nobody", nil, owned(role(readPods)), role(), missing},
		{"rule taken from a role that is not held", "nobody", nil, role(readPods), role(readPods, rule("list", "", "pods")), missing},
		{"rule taken from a role whose rest is held", "reader", nil, role(readPods), role(readPods, rule("list", "", "pods")), held},
		{"update that adds a rule", "nobody", nil, role(readPods), role(), missing},
		{"aggregation needs everything", "reader", nil, clusterRole(true), nil, notAdmin},
		{"aggregation by who has everything", "boss", nil, clusterRole(true), nil, held},
		{"aggregation added", "reader", nil, clusterRole(true), clusterRole(false), notAdmin},
		{"aggregation kept", "nobody", nil, clusterRole(true, readPods), clusterRole(true, readPods), held},
		{"aggregation removed", "cluster-reader", nil, clusterRole(false, readPods), clusterRole(true, readPods), notAdmin},
		{"aggregation removed by who has everything", "boss", nil, clusterRole(false, readPods), clusterRole(true, readPods), held},
		{"annotation on an aggregated role", "cluster-reader", nil, annotated(clusterRole(true, readPods)), clusterRole(true, readPods), notAdmin},
		{"aggregation without selectors gathers nothing", "cluster-reader", nil, emptied(clusterRole(true, readPods)), clusterRole(false, readPods), held},
		{"owner of an aggregated role", "nobody", nil, owned(clusterRole(true, readPods)), clusterRole(true, readPods), held},
		{"annotation on a cluster role that is not held", "nobody", nil, annotated(clusterRole(false, everything...)), clusterRole(false, everything...), missing},
		{"annotation on a cluster role that is held", "cluster-reader", nil, annotated(clusterRole(false, readPods)), clusterRole(false, readPods), held},
		{"owner of a cluster role that is not held", "nobody", nil, owned(clusterRole(false, everything...)), clusterRole(false, everything...), held},
		{"label added to a role that is not held", "reader", nil, labelled(clusterRole(false, everything...)), clusterRole(false, everything...), missing},
		{"label added to a role that is held", "boss", nil, labelled(clusterRole(false, everything...)), clusterRole(false, everything...), held},
		{"system:masters", "nobody", []string{"system:masters"}, clusterRole(false, everything...), nil, held},
		{"binding of held rules", "reader", nil, binding("Role", "pods", "x"), nil, held},
		{"binding of a cluster role's held rules", "reader", nil, binding("ClusterRole", "pods", "x"), nil, held},
		{"binding of more", "reader", nil, binding("ClusterRole", "root", "x"), nil, missing},
		{"bind lets bindings pass", "binder", nil, binding("ClusterRole", "root", "x"), nil, held},
		{"bind on one role is not for another", "binder", nil, binding("ClusterRole", "pods", "x"), nil, missing},
		{"bind in a namespace is not for the cluster", "binder", nil, clusterBinding("root"), nil, missing},
		{"binding of a role without rules", "nobody", nil, binding("ClusterRole", "empty", "x"), nil, held},
		{"binding of a missing role", "reader", nil, binding("ClusterRole", "gone", "x"), nil, "not found"},
		{"update of a binding that changes nothing", "nobody", nil, binding("ClusterRole", "root", "x"), binding("ClusterRole", "root", "x"), held},
		{"annotation on a binding that is not held", "reader", nil, annotated(binding("ClusterRole", "root", "x")), binding("ClusterRole", "root", "x"), missing},
		{"annotation on a binding that is held", "reader", nil, annotated(binding("ClusterRole", "pods", "x")), binding("ClusterRole", "pods", "x"), held},
		{"annotation on a binding by who may bind", "binder", nil, annotated(binding("ClusterRole", "root", "x")), binding("ClusterRole", "root", "x"), held},
		{"owner of a binding that is not held", "nobody", nil, owned(binding("ClusterRole", "root", "x")), binding("ClusterRole", "root", "x"), held},
		{"annotation on a cluster binding that is not held", "reader", nil, annotated(clusterBinding("root")), clusterBinding("root"), missing},
		{"owner of a cluster binding that is not held", "nobody", nil, owned(clusterBinding("root")), clusterBinding("root"), held},
		{"update that takes a subject from a binding that is not held", "reader", nil, binding("ClusterRole", "root", "x"), binding("ClusterRole", "root", "x", "y"), missing},
		{"update that adds a subject", "reader", nil, binding("ClusterRole", "root", "x", "y"), binding("ClusterRole", "root", "x"), missing},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			x := rolePolicy()
			err := newEscalation(x, authz.New(x), findRules).Validate(t.Context(), roleAttributes(c.who, c.groups, c.obj, c.old), nil)
			switch {
			case c.want == "" && err != nil:
				t.Errorf("refused: %v", err)
			case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

func roleAttributes(who string, groups []string, obj, old runtime.Object) admission.Attributes {
	m := obj.(metav1.Object)
	resource := map[bool]map[bool]string{
		true:  {true: "roles", false: "rolebindings"},
		false: {true: "clusterroles", false: "clusterrolebindings"},
	}[m.GetNamespace() != ""][m.GetName() == "r"]
	operation := admission.Create
	if old != nil {
		operation = admission.Update
	}
	return admission.NewAttributesRecord(obj, old, schema.GroupVersionKind{}, m.GetNamespace(), m.GetName(),
		rbacv1.SchemeGroupVersion.WithResource(resource), "", operation, nil, false, &user.DefaultInfo{Name: who, Groups: groups})
}

// TestUndecidedEscalation uses an authorizer that cannot decide now.
func TestUndecidedEscalation(t *testing.T) {
	t.Parallel()
	undecided := outage.New(errors.New("stale"))
	unsure := authorizer.AuthorizerFunc(func(context.Context, authorizer.Attributes) (authorizer.Decision, string, error) {
		return authorizer.DecisionNoOpinion, "", undecided
	})
	for _, who := range []string{"boss", "nobody"} {
		err := newEscalation(rolePolicy(), unsure, findRules).Validate(t.Context(), roleAttributes(who, nil, role(rule("*", "*", "*")), nil), nil)
		if !errors.Is(err, undecided) {
			t.Errorf("%s: %v, want %v", who, err, undecided)
		}
	}
	masters := roleAttributes("root", []string{user.SystemPrivilegedGroup}, role(rule("*", "*", "*")), nil)
	if err := newEscalation(rolePolicy(), unsure, findRules).Validate(t.Context(), masters, nil); err != nil {
		t.Errorf("system:masters: %v", err)
	}
}

// TestEscalationIgnoresOtherWrites writes objects of other groups and subresources.
func TestEscalationIgnoresOtherWrites(t *testing.T) {
	t.Parallel()
	x, obj, nobody := rolePolicy(), role(rule("*", "*", "*")), &user.DefaultInfo{Name: "nobody"}
	for _, other := range []struct {
		resource    schema.GroupVersionResource
		subresource string
	}{
		{schema.GroupVersionResource{Group: "example.com", Version: "v1", Resource: "roles"}, ""},
		{rbacv1.SchemeGroupVersion.WithResource("roles"), "status"},
	} {
		a := admission.NewAttributesRecord(obj, nil, schema.GroupVersionKind{}, "ns", "r", other.resource, other.subresource, admission.Create, nil, false, nobody)
		if err := newEscalation(x, authz.New(x), findRules).Validate(t.Context(), a, nil); err != nil {
			t.Errorf("%v %s: %v", other.resource, other.subresource, err)
		}
	}
}

func TestEscalationWithoutUser(t *testing.T) {
	t.Parallel()
	x := rolePolicy()
	m := role()
	a := admission.NewAttributesRecord(m, nil, schema.GroupVersionKind{}, "ns", "r", rbacv1.SchemeGroupVersion.WithResource("roles"), "", admission.Create, nil, false, nil)
	if err := newEscalation(x, authz.New(x), findRules).Validate(t.Context(), a, nil); !apierrors.IsForbidden(err) {
		t.Errorf("got %v, want forbidden", err)
	}
}

func TestDescribeRule(t *testing.T) {
	t.Parallel()
	got := describe(rbacv1.PolicyRule{APIGroups: []string{"", "apps"}, Resources: []string{"deployments"}, Verbs: []string{"get", "list"}})
	if want := `{APIGroups:["", "apps"], Resources:["deployments"], Verbs:["get", "list"]}`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}
