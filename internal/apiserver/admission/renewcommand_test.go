package admission

import (
	"context"
	"errors"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
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
	"lanyard.dev/internal/podannotation"
	"lanyard.dev/internal/rbac"
)

// execPolicy allows the user operator to create pods/exec in the namespace shop, the user one only for the pod web, and
// the user other only in another namespace. The user deployer may create, patch and update pods and their status. The
// node may create pods/exec.
func execPolicy() *rbac.Index {
	x := rbac.NewIndex()
	grant := func(namespace, name string, rule rbacv1.PolicyRule) {
		rule.APIGroups = []string{""}
		x.SetRole(&rbacv1.Role{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}, Rules: []rbacv1.PolicyRule{rule}})
		x.SetRoleBinding(&rbacv1.RoleBinding{
			ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: name},
			Subjects: []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: "User", Name: name}},
		})
	}
	exec := rbacv1.PolicyRule{Verbs: []string{"create"}, Resources: []string{"pods/exec"}}
	grant("shop", "operator", exec)
	grant("shop", "system:node:n", exec)
	grant("elsewhere", "other", exec)
	grant("shop", "one", rbacv1.PolicyRule{Verbs: exec.Verbs, Resources: exec.Resources, ResourceNames: []string{"web"}})
	grant("shop", "deployer", rbacv1.PolicyRule{Verbs: []string{"create", "patch", "update", "get"}, Resources: []string{"pods", "pods/status", "pods/attach"}})
	return x
}

func podWith(name, how string) *corev1.Pod {
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name}}
	if how != "" {
		pod.Annotations = map[string]string{podannotation.OnRenew: how}
	}
	return pod
}

// TestUndecidedRenewCommand uses an authorizer that cannot decide now.
func TestUndecidedRenewCommand(t *testing.T) {
	t.Parallel()
	undecided := outage.New(errors.New("stale"))
	unsure := authorizer.AuthorizerFunc(func(context.Context, authorizer.Attributes) (authorizer.Decision, string, error) {
		return authorizer.DecisionNoOpinion, "", undecided
	})
	a := admission.NewAttributesRecord(podWith("web", "exec:/bin/reload"), nil, schema.GroupVersionKind{}, "shop", "web",
		corev1.SchemeGroupVersion.WithResource("pods"), "", admission.Create, nil, false, &user.DefaultInfo{Name: "operator"})
	if err := newRenewCommand(unsure).Validate(t.Context(), a, nil); outage.Of(err) == nil {
		t.Errorf("got %v, want %v", err, undecided)
	}
}

func TestRenewCommandNeedsExec(t *testing.T) {
	t.Parallel()
	const command = "exec:/bin/reload"
	plugin := newRenewCommand(authz.New(execPolicy()))
	pods := corev1.SchemeGroupVersion.WithResource("pods")
	for name, test := range map[string]struct {
		who      string
		groups   []string
		pod, old *corev1.Pod
		sub      string
		allowed  bool
	}{
		"with the right":                    {who: "operator", pod: podWith("web", command), allowed: true},
		"with the right to this pod":        {who: "one", pod: podWith("web", command), allowed: true},
		"with the right to another":         {who: "one", pod: podWith("db", command)},
		"with the right to one, no name":    {who: "one", pod: podWith("", command)},
		"with the right elsewhere":          {who: "other", pod: podWith("web", command)},
		"without":                           {who: "deployer", pod: podWith("web", command)},
		"a signal":                          {who: "deployer", pod: podWith("web", "signal:HUP"), allowed: true},
		"nothing":                           {who: "deployer", pod: podWith("web", ""), allowed: true},
		"what no agent can read":            {who: "deployer", pod: podWith("web", "exec:"), allowed: true},
		"a node":                            {who: "system:node:n", groups: []string{"system:nodes"}, pod: podWith("web", command)},
		"an administrator":                  {who: "root", groups: []string{"system:masters"}, pod: podWith("web", command), allowed: true},
		"an update that leaves it":          {who: "deployer", pod: podWith("web", command), old: podWith("web", command), allowed: true},
		"an update that adds it":            {who: "deployer", pod: podWith("web", command), old: podWith("web", "")},
		"an update that changes it":         {who: "deployer", pod: podWith("web", command), old: podWith("web", "exec:/bin/other")},
		"an update of the status that does": {who: "deployer", pod: podWith("web", command), old: podWith("web", ""), sub: "status"},
	} {
		op, old := admission.Create, runtime.Object(nil)
		if test.old != nil {
			op, old = admission.Update, test.old
		}
		who := &user.DefaultInfo{Name: test.who, Groups: test.groups}
		a := admission.NewAttributesRecord(test.pod, old, schema.GroupVersionKind{}, "shop", test.pod.Name, pods, test.sub, op, nil, false, who)
		err := plugin.Validate(t.Context(), a, nil)
		if test.allowed && err != nil || !test.allowed && (!apierrors.IsForbidden(err) || !strings.Contains(err.Error(), podannotation.OnRenew)) {
			t.Errorf("%s: %v", name, err)
		}
	}
	other := admission.NewAttributesRecord(&corev1.Binding{}, nil, schema.GroupVersionKind{}, "shop", "web", pods, "binding", admission.Create, nil, false, &user.DefaultInfo{Name: "deployer"})
	if err := plugin.Validate(t.Context(), other, nil); err != nil {
		t.Errorf("a binding: %v", err)
	}
	if !plugin.Handles(admission.Create) || !plugin.Handles(admission.Update) {
		t.Error("the plugin does not handle creates and updates")
	}
}
