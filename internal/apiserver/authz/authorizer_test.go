package authz_test

import (
	"errors"
	"testing"

	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"

	"lanyard.dev/internal/apiserver/authz"
	"lanyard.dev/internal/apiserver/outage"
	"lanyard.dev/internal/rbac"
)

// source is a feed that is fresh if err is nil.
type source struct{ err error }

func (s *source) Fresh() error { return s.err }

// set adds objects to an index, as feeds do.
func set(index *rbac.Index, objects ...runtime.Object) {
	for _, o := range objects {
		authz.NewPolicy(index, kindOf(o)).Set(o)
	}
}

func kindOf(o runtime.Object) rbac.Kind {
	switch o.(type) {
	case *rbacv1.Role:
		return rbac.Role
	case *rbacv1.RoleBinding:
		return rbac.RoleBinding
	case *rbacv1.ClusterRole:
		return rbac.ClusterRole
	}
	return rbac.ClusterRoleBinding
}

func meta(namespace, name, version string) metav1.ObjectMeta {
	return metav1.ObjectMeta{Namespace: namespace, Name: name, ResourceVersion: version}
}

func rule(verb, group, resource string, names ...string) []rbacv1.PolicyRule {
	return []rbacv1.PolicyRule{{Verbs: []string{verb}, APIGroups: []string{group}, Resources: []string{resource}, ResourceNames: names}}
}

func robot() []rbacv1.Subject {
	return []rbacv1.Subject{{Kind: "ServiceAccount", Namespace: "ns", Name: "robot"}}
}

func ref(kind, name string) rbacv1.RoleRef {
	return rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: kind, Name: name}
}

func policy() *rbac.Index {
	index := rbac.NewIndex()
	set(index,
		&rbacv1.Role{ObjectMeta: meta("ns", "r", "1"), Rules: rule("get", "", "pods", "one")},
		&rbacv1.RoleBinding{ObjectMeta: meta("ns", "b", "2"), RoleRef: ref("Role", "r"), Subjects: robot()},
		&rbacv1.ClusterRole{ObjectMeta: meta("", "logs", "3"), Rules: rule("get", "apps", "things/log")},
		&rbacv1.ClusterRoleBinding{ObjectMeta: meta("", "cb", "4"), RoleRef: ref("ClusterRole", "logs"), Subjects: robot()},
		&rbacv1.ClusterRole{ObjectMeta: meta("", "health", "5"), Rules: []rbacv1.PolicyRule{{Verbs: []string{"get"}, NonResourceURLs: []string{"/healthz"}}}},
		&rbacv1.ClusterRoleBinding{ObjectMeta: meta("", "hb", "6"), RoleRef: ref("ClusterRole", "health"),
			Subjects: []rbacv1.Subject{{Kind: "Group", APIGroup: rbacv1.GroupName, Name: "watchers"}}},
		&rbacv1.ClusterRoleBinding{ObjectMeta: meta("", "broken", "7"), RoleRef: ref("ClusterRole", "missing"),
			Subjects: []rbacv1.Subject{{Kind: "User", APIGroup: rbacv1.GroupName, Name: "lost"}}},
	)
	return index
}

// TestAuthorize has at least one request for each attribute that is passed to the index, whose decision depends on it.
func TestAuthorize(t *testing.T) {
	t.Parallel()
	account := &user.DefaultInfo{Name: "system:serviceaccount:ns:robot"}
	good := authorizer.AttributesRecord{User: account, Verb: "get", Namespace: "ns", Resource: "pods", Name: "one", ResourceRequest: true}
	sub := authorizer.AttributesRecord{User: account, Verb: "get", APIGroup: "apps", Resource: "things", Subresource: "log", ResourceRequest: true}
	path := authorizer.AttributesRecord{User: &user.DefaultInfo{Name: "x", Groups: []string{"watchers"}}, Verb: "get", Path: "/healthz"}
	byRole := `RBAC: allowed by RoleBinding "b/ns" of Role "r" to ServiceAccount "robot/ns"`
	for _, test := range []struct {
		name       string
		attributes authorizer.AttributesRecord
		mutate     func(*authorizer.AttributesRecord)
		want       authorizer.Decision
		reason     string
	}{
		{"role", good, nil, authorizer.DecisionAllow, byRole},
		{"verb", good, func(a *authorizer.AttributesRecord) { a.Verb = "list" }, authorizer.DecisionNoOpinion, ""},
		{"namespace", good, func(a *authorizer.AttributesRecord) { a.Namespace = "other" }, authorizer.DecisionNoOpinion, ""},
		{"name", good, func(a *authorizer.AttributesRecord) { a.Name = "two" }, authorizer.DecisionNoOpinion, ""},
		{"resource", good, func(a *authorizer.AttributesRecord) { a.Resource = "secrets" }, authorizer.DecisionNoOpinion, ""},
		{"user", good, func(a *authorizer.AttributesRecord) { a.User = &user.DefaultInfo{Name: "other"} }, authorizer.DecisionNoOpinion, ""},
		{"no user", good, func(a *authorizer.AttributesRecord) { a.User = nil }, authorizer.DecisionNoOpinion, "no user on request"},
		{"subresource", sub, nil, authorizer.DecisionAllow, `RBAC: allowed by ClusterRoleBinding "cb" of ClusterRole "logs" to ServiceAccount "robot/ns"`},
		{"other subresource", sub, func(a *authorizer.AttributesRecord) { a.Subresource = "" }, authorizer.DecisionNoOpinion, ""},
		{"group", sub, func(a *authorizer.AttributesRecord) { a.APIGroup = "" }, authorizer.DecisionNoOpinion, ""},
		{"path by group", path, nil, authorizer.DecisionAllow, `RBAC: allowed by ClusterRoleBinding "hb" of ClusterRole "health" to Group "watchers"`},
		{"other path", path, func(a *authorizer.AttributesRecord) { a.Path = "/metrics" }, authorizer.DecisionNoOpinion, ""},
		{"path taken for a resource", path, func(a *authorizer.AttributesRecord) { a.ResourceRequest = true }, authorizer.DecisionNoOpinion, ""},
		{"missing role", good, func(a *authorizer.AttributesRecord) { a.User = &user.DefaultInfo{Name: "lost"} }, authorizer.DecisionNoOpinion,
			`RBAC: clusterrole.rbac.authorization.k8s.io "missing" not found`},
		{"masters", good, func(a *authorizer.AttributesRecord) {
			a.User, a.Verb = &user.DefaultInfo{Name: "admin", Groups: []string{"system:masters"}}, "escalate"
		}, authorizer.DecisionAllow, ""},
		{"a user named like the group", good, func(a *authorizer.AttributesRecord) {
			a.User = &user.DefaultInfo{Name: "system:masters"}
		}, authorizer.DecisionNoOpinion, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			attributes := test.attributes
			if test.mutate != nil {
				test.mutate(&attributes)
			}
			decision, reason, err := authz.New(policy(), &source{}).Authorize(t.Context(), attributes)
			if decision != test.want || reason != test.reason || err != nil {
				t.Errorf("got %v, %q, %v, want %v, %q", decision, reason, err, test.want, test.reason)
			}
		})
	}
}

// TestStalePolicyAllowsNothing checks that an index that may be out of date allows administrators only.
func TestStalePolicyAllowsNothing(t *testing.T) {
	t.Parallel()
	stale := errors.New("stale")
	feed := &source{}
	az := authz.New(policy(), &source{}, feed)
	account := &user.DefaultInfo{Name: "system:serviceaccount:ns:robot"}
	attributes := authorizer.AttributesRecord{User: account, Verb: "get", Namespace: "ns", Resource: "pods", Name: "one", ResourceRequest: true}
	if decision, _, err := az.Authorize(t.Context(), attributes); decision != authorizer.DecisionAllow || err != nil {
		t.Fatalf("fresh: %v, %v", decision, err)
	}
	feed.err = stale
	if decision, reason, err := az.Authorize(t.Context(), attributes); decision != authorizer.DecisionNoOpinion || reason != "" || !errors.Is(err, stale) {
		t.Errorf("stale: %v, %q, %v", decision, reason, err)
	}
	resource, paths, incomplete, err := az.RulesFor(t.Context(), account, "ns")
	if len(resource)+len(paths) > 0 || !incomplete || !errors.Is(err, stale) {
		t.Errorf("rules of a stale index: %v, %v, incomplete=%v, %v", resource, paths, incomplete, err)
	}
	// An administrator must be able to repair the server.
	attributes.User = &user.DefaultInfo{Name: "admin", Groups: []string{user.SystemPrivilegedGroup}}
	if decision, _, err := az.Authorize(t.Context(), attributes); decision != authorizer.DecisionAllow || err != nil {
		t.Errorf("administrator: %v, %v", decision, err)
	}
}

// TestHealthChecksDuringAnOutage checks that health checks alone are decided by an index that may be out of date.
func TestHealthChecksDuringAnOutage(t *testing.T) {
	t.Parallel()
	index := rbac.NewIndex()
	all := []rbacv1.PolicyRule{
		{Verbs: []string{"*"}, NonResourceURLs: []string{"*"}},
		{Verbs: []string{"*"}, APIGroups: []string{"*"}, Resources: []string{"*"}},
	}
	set(index, &rbacv1.ClusterRole{ObjectMeta: meta("", "all", "1"), Rules: all},
		&rbacv1.ClusterRoleBinding{ObjectMeta: meta("", "all", "2"), RoleRef: ref("ClusterRole", "all"), Subjects: robot()})
	account := &user.DefaultInfo{Name: "system:serviceaccount:ns:robot"}
	az := authz.New(index, &source{errors.New("stale")})
	for _, test := range []struct {
		verb, path string
		resource   bool
		want       bool
	}{
		{"get", "/livez", false, true}, {"get", "/readyz", false, true}, {"get", "/healthz", false, true},
		{"get", "/livez/ping", false, true}, {"get", "/readyz/", false, true},
		{"put", "/livez", false, false}, {"get", "/livezz", false, false}, {"get", "/", false, false}, {"get", "/api", false, false},
		{"get", "/metrics", false, false}, {"get", "/api/readyz", false, false}, {"get", "/livez", true, false},
	} {
		attributes := authorizer.AttributesRecord{User: account, Verb: test.verb, Path: test.path, ResourceRequest: test.resource, Resource: "pods"}
		decision, _, err := az.Authorize(t.Context(), attributes)
		if (decision == authorizer.DecisionAllow) != test.want || (outage.Of(err) == nil) != test.want {
			t.Errorf("%s %s, resource=%v: %v, %v, want allowed=%v", test.verb, test.path, test.resource, decision, err, test.want)
		}
	}
	// A policy that allows nothing does not allow health checks.
	attributes := authorizer.AttributesRecord{User: &user.DefaultInfo{Name: "other"}, Verb: "get", Path: "/livez"}
	if decision, _, err := az.Authorize(t.Context(), attributes); decision != authorizer.DecisionNoOpinion || err != nil {
		t.Errorf("another user: %v, %v", decision, err)
	}
}

// TestRulesFor checks how the rules of the index are listed.
func TestRulesFor(t *testing.T) {
	t.Parallel()
	az := authz.New(policy(), &source{})
	who := &user.DefaultInfo{Name: "system:serviceaccount:ns:robot", Groups: []string{"watchers"}}
	resource, paths, incomplete, err := az.RulesFor(t.Context(), who, "ns")
	if err != nil || incomplete {
		t.Fatal(incomplete, err)
	}
	var got []string
	for _, r := range resource {
		got = append(got, r.GetVerbs()[0]+" "+r.GetAPIGroups()[0]+"/"+r.GetResources()[0])
	}
	if len(got) != 2 || got[0] != "get apps/things/log" || got[1] != "get /pods" || resource[1].GetResourceNames()[0] != "one" {
		t.Errorf("resource rules %q", got)
	}
	if len(paths) != 1 || paths[0].GetNonResourceURLs()[0] != "/healthz" || paths[0].GetVerbs()[0] != "get" {
		t.Errorf("path rules %v", paths)
	}
}

// TestPolicyDelete checks that the deletion of each kind takes a permission away.
func TestPolicyDelete(t *testing.T) {
	t.Parallel()
	account := &user.DefaultInfo{Name: "system:serviceaccount:ns:robot"}
	role := authorizer.AttributesRecord{User: account, Verb: "get", Namespace: "ns", Resource: "pods", Name: "one", ResourceRequest: true}
	cluster := authorizer.AttributesRecord{User: account, Verb: "get", APIGroup: "apps", Resource: "things", Subresource: "log", ResourceRequest: true}
	for _, test := range []struct {
		kind            rbac.Kind
		namespace, name string
		attributes      authorizer.AttributesRecord
	}{
		{rbac.Role, "ns", "r", role}, {rbac.RoleBinding, "ns", "b", role},
		{rbac.ClusterRole, "", "logs", cluster}, {rbac.ClusterRoleBinding, "", "cb", cluster},
	} {
		t.Run(test.kind.String(), func(t *testing.T) {
			t.Parallel()
			index := policy()
			az := authz.New(index)
			// A deletion that a list reveals is delivered with the last version that was known.
			authz.NewPolicy(index, test.kind).Delete(&metav1.PartialObjectMetadata{ObjectMeta: meta(test.namespace, test.name, "1")})
			if decision, _, _ := az.Authorize(t.Context(), test.attributes); decision != authorizer.DecisionNoOpinion {
				t.Errorf("after the removal: %v", decision)
			}
		})
	}
}

// TestPolicyCopiesObjects checks that a later change of an object does not change the index.
func TestPolicyCopiesObjects(t *testing.T) {
	t.Parallel()
	index := rbac.NewIndex()
	role := &rbacv1.ClusterRole{ObjectMeta: meta("", "logs", "3"), Rules: rule("get", "apps", "things/log")}
	set(index, role, &rbacv1.ClusterRoleBinding{ObjectMeta: meta("", "cb", "4"), RoleRef: ref("ClusterRole", "logs"), Subjects: robot()})
	role.Rules[0].Verbs[0] = "delete" // the request that wrote the object may change it
	rules, _, _, _ := authz.New(index).RulesFor(t.Context(), &user.DefaultInfo{Name: "system:serviceaccount:ns:robot"}, "")
	if len(rules) != 1 || rules[0].GetVerbs()[0] != "get" {
		t.Errorf("got %v", rules)
	}
}
