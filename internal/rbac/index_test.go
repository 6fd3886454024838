package rbac_test

import (
	"fmt"
	"reflect"
	"slices"
	"testing"

	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"lanyard.dev/internal/rbac"
)

func versioned(namespace, name, version string) metav1.ObjectMeta {
	return metav1.ObjectMeta{Namespace: namespace, Name: name, ResourceVersion: version}
}

func clusterRole(name, version string, rules ...rbacv1.PolicyRule) *rbacv1.ClusterRole {
	return &rbacv1.ClusterRole{ObjectMeta: versioned("", name, version), Rules: rules}
}

func bindUsers(name, version, role string, users ...string) *rbacv1.ClusterRoleBinding {
	b := &rbacv1.ClusterRoleBinding{
		ObjectMeta: versioned("", name, version),
		RoleRef:    rbacv1.RoleRef{Kind: "ClusterRole", Name: role},
	}
	for _, u := range users {
		b.Subjects = append(b.Subjects, rbacv1.Subject{Kind: "User", Name: u})
	}
	return b
}

func canGet(x *rbac.Index, user, resource string) bool {
	return x.Authorize(rbac.Request{User: user, Verb: "get", ResourceRequest: true, Resource: resource}).Allowed
}

func wantGet(t *testing.T, x *rbac.Index, when, user, resource string, want bool) {
	t.Helper()
	if got := canGet(x, user, resource); got != want {
		t.Errorf("%s: %s may get %s: %v, want %v", when, user, resource, got, want)
	}
}

var (
	roleRef    = rbac.Ref{Kind: rbac.ClusterRole, Name: "r"}
	bindingRef = rbac.Ref{Kind: rbac.ClusterRoleBinding, Name: "b"}
)

func TestRoleIsCreatedAndDeleted(t *testing.T) {
	t.Parallel()
	x := rbac.NewIndex()
	x.SetClusterRoleBinding(bindUsers("b", "", "r", "ann"))
	wantGet(t, x, "no role yet", "ann", "pods", false)
	x.SetClusterRole(clusterRole("r", "", readRules("pods")...))
	wantGet(t, x, "role made", "ann", "pods", true)
	x.SetClusterRole(clusterRole("r", "", readRules("secrets")...))
	wantGet(t, x, "role changed", "ann", "pods", false)
	wantGet(t, x, "role changed", "ann", "secrets", true)
	x.Delete(roleRef, "")
	wantGet(t, x, "role deleted", "ann", "secrets", false)
	x.Delete(roleRef, "")
	x.SetClusterRole(clusterRole("r", "", readRules("pods")...))
	wantGet(t, x, "role made again", "ann", "pods", true)
	x.Delete(bindingRef, "")
	wantGet(t, x, "binding deleted", "ann", "pods", false)
}

func TestBindingChanges(t *testing.T) {
	t.Parallel()
	x := rbac.NewIndex()
	x.SetClusterRole(clusterRole("r", "", readRules("pods")...))
	x.SetClusterRole(clusterRole("s", "", readRules("secrets")...))
	x.SetClusterRoleBinding(bindUsers("b", "", "r", "ann", "bob", "ann"))
	x.SetClusterRoleBinding(bindUsers("b", "", "r", "bob", "carl"))
	wantGet(t, x, "subject removed", "ann", "pods", false)
	wantGet(t, x, "subject kept", "bob", "pods", true)
	wantGet(t, x, "subject added", "carl", "pods", true)
	x.SetClusterRoleBinding(bindUsers("b", "", "s", "bob"))
	wantGet(t, x, "re-created with another role", "bob", "pods", false)
	wantGet(t, x, "re-created with another role", "bob", "secrets", true)
	wantGet(t, x, "re-created with another role", "carl", "pods", false)
	x.SetClusterRoleBinding(bindUsers("b", "", "s"))
	wantGet(t, x, "no subjects", "bob", "secrets", false)
}

func TestStaleChangesAreIgnored(t *testing.T) {
	t.Parallel()
	x := rbac.NewIndex()
	x.SetClusterRole(clusterRole("r", "5", readRules("pods")...))
	x.SetClusterRoleBinding(bindUsers("b", "7", "r", "ann"))
	x.SetClusterRoleBinding(bindUsers("b", "6", "r", "bob"))
	x.SetClusterRoleBinding(bindUsers("b", "7", "r", "bob"))
	wantGet(t, x, "older binding", "bob", "pods", false)
	wantGet(t, x, "older binding", "ann", "pods", true)
	x.SetClusterRole(clusterRole("r", "4"))
	wantGet(t, x, "older role", "ann", "pods", true)
	x.Delete(bindingRef, "6")
	wantGet(t, x, "older deletion", "ann", "pods", true)
	x.Delete(bindingRef, "9")
	for _, version := range []string{"8", "9"} {
		x.SetClusterRoleBinding(bindUsers("b", version, "r", "ann"))
		wantGet(t, x, "change "+version+" up to the deletion", "ann", "pods", false)
	}
	x.SetClusterRoleBinding(bindUsers("b", "10", "r", "ann"))
	wantGet(t, x, "made after the deletion", "ann", "pods", true)
	x.Delete(roleRef, "12")
	x.Forget("11")
	x.SetClusterRole(clusterRole("r", "11", readRules("pods")...))
	wantGet(t, x, "deletion newer than what was forgotten", "ann", "pods", false)
	x.Forget("12")
	x.SetClusterRole(clusterRole("r", "11", readRules("pods")...))
	wantGet(t, x, "deletion forgotten", "ann", "pods", true)
	x.Delete(bindingRef, "")
	wantGet(t, x, "deletion without a version", "ann", "pods", false)
}

func TestRetainDropsObjectsThatAListLacks(t *testing.T) {
	t.Parallel()
	x := rbac.NewIndex()
	x.SetClusterRole(clusterRole("r", "1", readRules("pods")...))
	x.SetClusterRole(clusterRole("s", "2", readRules("secrets")...))
	x.SetClusterRoleBinding(bindUsers("b", "3", "r", "ann"))
	x.SetClusterRoleBinding(bindUsers("c", "4", "s", "ann"))
	x.SetClusterRoleBinding(bindUsers("d", "9", "r", "bob"))
	x.SetClusterRoleBinding(bindUsers("e", "5", "r", "carl"))
	x.Retain(rbac.ClusterRoleBinding, "5", func(_, name string) bool { return name == "c" })
	wantGet(t, x, "not in the list", "ann", "pods", false)
	wantGet(t, x, "in the list", "ann", "secrets", true)
	wantGet(t, x, "newer than the list", "bob", "pods", true)
	wantGet(t, x, "as old as the list", "carl", "pods", false)
	x.Retain(rbac.ClusterRole, "10", func(_, _ string) bool { return false })
	wantGet(t, x, "role not in the list", "ann", "secrets", false)
}

func TestManyRolesOfOneSubject(t *testing.T) {
	t.Parallel()
	x := rbac.NewIndex()
	const n = 40
	name := func(i int) string { return fmt.Sprintf("r%02d", i) }
	for i := range n {
		x.SetClusterRole(clusterRole(name(i), "", readRules(name(i))...))
		x.SetClusterRoleBinding(bindUsers(name(i), "", name(i), "ann"))
	}
	x.SetClusterRole(clusterRole(name(3), "", readRules("moved")...))
	for i := range n {
		wantGet(t, x, "all bound", "ann", name(i), i != 3)
	}
	wantGet(t, x, "role changed in a wide scope", "ann", "moved", true)
	for i := range n {
		x.Delete(rbac.Ref{Kind: rbac.ClusterRoleBinding, Name: name(i)}, "")
		if i+1 < n {
			wantGet(t, x, "later ones stay", "ann", name(n-1), true)
		}
		wantGet(t, x, "unbound", "ann", name(i), false)
	}
	if d := x.Authorize(rbac.Request{User: "ann", Verb: "get", Path: "/"}); d.Allowed || d.Reason() != "" {
		t.Errorf("emptied index decides %+v", d)
	}
}

// TestLargeObjects indexes objects of the largest size that the API can store.
func TestLargeObjects(t *testing.T) {
	t.Parallel()
	x := rbac.NewIndex()
	var rules []rbacv1.PolicyRule
	var users []string
	for i := range 10_000 {
		rules = append(rules, rbacv1.PolicyRule{
			Verbs: []string{"get"}, APIGroups: []string{""}, Resources: []string{"secrets"}, ResourceNames: []string{fmt.Sprint("s", i)},
		})
		users = append(users, fmt.Sprint("u", i))
	}
	x.SetClusterRole(clusterRole("r", "", rules...))
	x.SetClusterRoleBinding(bindUsers("b", "", "r", users...))
	for _, i := range []int{0, 1, 4999, 9999, 10_000} {
		req := rbac.Request{User: "u77", Verb: "get", ResourceRequest: true, Resource: "secrets", Name: fmt.Sprint("s", i)}
		if got, want := x.Authorize(req).Allowed, i < 10_000; got != want {
			t.Errorf("name %s: allowed %v, want %v", req.Name, got, want)
		}
	}
	wantGet(t, x, "named rules only", "u0", "secrets", false)
}

func TestLongLists(t *testing.T) {
	t.Parallel()
	x := rbac.NewIndex()
	long := func(prefix string) (list []string) {
		for i := range 20 {
			list = append(list, fmt.Sprint(prefix, i))
		}
		return list
	}
	x.SetClusterRole(clusterRole("r", "", rbacv1.PolicyRule{
		Verbs: long("v"), APIGroups: long("g"), Resources: long("r"), ResourceNames: long("n"),
	}))
	x.SetClusterRoleBinding(bindUsers("b", "", "r", "ann"))
	hit := rbac.Request{User: "ann", Verb: "v19", APIGroup: "g7", Resource: "r0", Name: "n12", ResourceRequest: true}
	if !x.Authorize(hit).Allowed {
		t.Error("a request within every list is denied")
	}
	for _, change := range []func(*rbac.Request){
		func(r *rbac.Request) { r.Verb = "v20" },
		func(r *rbac.Request) { r.APIGroup = "g20" },
		func(r *rbac.Request) { r.Resource = "r20" },
		func(r *rbac.Request) { r.Name = "n20" },
	} {
		miss := hit
		change(&miss)
		if x.Authorize(miss).Allowed {
			t.Errorf("%+v is allowed", miss)
		}
	}
}

func TestAuthorizeDoesNotAllocate(t *testing.T) {
	x := benchIndex(100)
	doesNot := func(verb string) {
		t.Helper()
		req := accountRequest(verb)
		x.Authorize(req).Reason()
		if n := testing.AllocsPerRun(100, func() { x.Authorize(req).Reason() }); n != 0 {
			t.Errorf("%s: %v allocations, want none", verb, n)
		}
	}
	doesNot("get")
	doesNot("delete")
	x.SetClusterRoleBinding(bindUsers("b", "", "missing", accountRequest("get").User))
	doesNot("get") // while a role is missing, only a denial looks for it
}

func TestDecisionNamesBindingAndRole(t *testing.T) {
	t.Parallel()
	d := benchIndex(10).Authorize(accountRequest("get"))
	binding, _ := d.Binding()
	role, _ := d.Role()
	subject, _ := d.Subject()
	if want := (rbac.Ref{Kind: rbac.RoleBinding, Namespace: "ns7", Name: "account7"}); binding != want {
		t.Errorf("binding %+v, want %+v", binding, want)
	}
	if want := (rbac.Ref{Kind: rbac.ClusterRole, Name: "reader"}); role != want {
		t.Errorf("role %+v, want %+v", role, want)
	}
	if subject.Kind != "ServiceAccount" || subject.Name != "account7" {
		t.Errorf("subject %+v", subject)
	}
	var denied rbac.Decision
	if _, ok := denied.Binding(); ok {
		t.Error("a denial has a binding")
	}
	if _, ok := denied.Role(); ok {
		t.Error("a denial has a role")
	}
}

// TestDecisionNamesTheSubjectAsWritten checks that a decision names the first of several forms of an account, in the last
// version of the binding.
func TestDecisionNamesTheSubjectAsWritten(t *testing.T) {
	t.Parallel()
	x := rbac.NewIndex()
	x.SetClusterRole(clusterRole("reader", "", readRules("pods")...))
	short, long := rbacv1.Subject{Kind: "ServiceAccount", Name: "account7"}, rbacv1.Subject{Kind: "ServiceAccount", Namespace: "ns7", Name: "account7"}
	for _, subjects := range [][]rbacv1.Subject{{short, long}, {long, short}, {short}} {
		x.SetRoleBinding(&rbacv1.RoleBinding{
			ObjectMeta: versioned("ns7", "b", ""), RoleRef: rbacv1.RoleRef{Kind: "ClusterRole", Name: "reader"}, Subjects: subjects,
		})
		if got, ok := x.Authorize(accountRequest("get")).Subject(); !ok || got != subjects[0] {
			t.Errorf("bound to %+v: subject %+v, %v", subjects, got, ok)
		}
	}
}

func TestRulesForReturnsEachRoleOnce(t *testing.T) {
	t.Parallel()
	x := rbac.NewIndex()
	rules := append(readRules("pods"), rbacv1.PolicyRule{Verbs: []string{"get"}, NonResourceURLs: []string{"/x"}})
	x.SetClusterRole(clusterRole("r", "", rules...))
	bind := &rbacv1.RoleBinding{
		ObjectMeta: versioned("a", "b", ""),
		RoleRef:    rbacv1.RoleRef{Kind: "ClusterRole", Name: "r"},
		Subjects:   []rbacv1.Subject{{Kind: "User", Name: "ann"}, {Kind: "Group", Name: "g"}},
	}
	x.SetRoleBinding(bind)
	if got := x.RulesFor("ann", []string{"g"}, "a"); len(got.Resource) != 1 || len(got.NonResource) != 0 {
		t.Errorf("through a RoleBinding: %+v", got)
	}
	if got := x.RulesFor("ann", []string{"g"}, ""); len(got.Resource) != 0 {
		t.Errorf("cluster-wide: %+v", got)
	}
	x.SetClusterRoleBinding(bindUsers("b", "", "r", "ann"))
	got := x.RulesFor("ann", []string{"g"}, "a")
	if want := (rbac.Rules{Resource: rules[:1], NonResource: rules[1:]}); !reflect.DeepEqual(got, want) {
		t.Errorf("through both: %+v, want %+v", got, want)
	}
	x.SetClusterRole(clusterRole("s", "", readRules("secrets")...))
	x.SetClusterRoleBinding(bindUsers("c", "", "s", "ann"))
	if got := x.RulesFor("ann", nil, ""); len(got.Resource) != 2 {
		t.Errorf("of two roles: %+v", got)
	}
}

func TestGrants(t *testing.T) {
	t.Parallel()
	x := benchIndex(3)
	x.SetClusterRoleBinding(bindUsers("ghost", "", "none", "ann", "bob"))
	all := slices.Collect(x.Grants())
	if len(all) != 5 {
		t.Fatalf("%d grants, want 5: %+v", len(all), all)
	}
	for _, g := range all {
		if ghost := g.Binding.Name == "ghost"; g.Dangling != ghost || (g.Rules == nil) != ghost {
			t.Errorf("grant %+v", g)
		}
	}
	x.SetRoleBinding(&rbacv1.RoleBinding{
		ObjectMeta: versioned("ns9", "short", ""), RoleRef: rbacv1.RoleRef{Kind: "ClusterRole", Name: "reader"},
		Subjects: []rbacv1.Subject{{Kind: "ServiceAccount", Name: "a"}, {Kind: "User", Name: "ann"}},
	})
	for user, want := range map[string]rbacv1.Subject{
		"system:serviceaccount:ns9:a": {Kind: "ServiceAccount", Namespace: "ns9", Name: "a"}, "ann": {Kind: "User", Name: "ann"},
	} {
		if got := x.GrantsFor(user, nil, "ns9"); len(got) == 0 || got[len(got)-1].Subject != want {
			t.Errorf("grants for %s: %+v, want the last to %+v", user, got, want)
		}
	}
	got := x.GrantsFor("ann", []string{"system:authenticated"}, "ns7")
	if len(got) != 1 || got[0].Subject.Name != "ann" || !got[0].Dangling {
		t.Errorf("grants for ann: %+v", got)
	}
}

func TestCoversIsBounded(t *testing.T) {
	t.Parallel()
	x := rbac.NewIndex()
	x.SetClusterRole(clusterRole("r", "", readRules("pods")...))
	x.SetClusterRoleBinding(bindUsers("b", "", "r", "ann"))
	many := make([]string, 3000)
	for i := range many {
		many[i] = fmt.Sprint("x", i)
	}
	huge := rbacv1.PolicyRule{Verbs: many, APIGroups: many, Resources: many, ResourceNames: many}
	if ok, missing := x.Covers("ann", nil, "", []rbacv1.PolicyRule{huge}); ok || len(missing) > 256 {
		t.Errorf("uncovered: %v, %d missing", ok, len(missing))
	}
	held := slices.Repeat([]string{"get"}, 1<<10) // two such lists have as many combinations as the limit
	repeated := rbacv1.PolicyRule{Verbs: held, APIGroups: []string{""}, Resources: []string{"pods"}, ResourceNames: held}
	if ok, missing := x.Covers("ann", nil, "", []rbacv1.PolicyRule{repeated}); !ok {
		t.Errorf("at the bound: %d missing", len(missing))
	}
	repeated.Verbs = append(held, "get")
	if ok, missing := x.Covers("ann", nil, "", []rbacv1.PolicyRule{repeated}); ok || len(missing) != 1 {
		t.Errorf("beyond the bound: %v, %d missing; want the rule itself", ok, len(missing))
	}
	several := slices.Repeat([]rbacv1.PolicyRule{{Verbs: []string{"get"}, APIGroups: []string{""}, Resources: []string{"secrets"}}}, 300)
	if ok, missing := x.Covers("ann", nil, "", several); ok || len(missing) != 256 {
		t.Errorf("300 rules that are not covered: %v, %d missing; want the first 256", ok, len(missing))
	}
}

// TestCoversIsUnboundedForHoldersOfEverything checks that the limit does not apply to users with all permissions, for whom no
// combination is tested.
func TestCoversIsUnboundedForHoldersOfEverything(t *testing.T) {
	t.Parallel()
	x := rbac.NewIndex()
	every := []string{"*"}
	x.SetClusterRole(clusterRole("resources", "", rbacv1.PolicyRule{Verbs: every, APIGroups: every, Resources: every}))
	x.SetClusterRole(clusterRole("urls", "", rbacv1.PolicyRule{Verbs: every, NonResourceURLs: every}))
	x.SetClusterRoleBinding(bindUsers("resources", "", "resources", "ann"))
	x.SetClusterRoleBinding(bindUsers("urls", "", "urls", "bob"))
	many := make([]string, 1100) // two such lists have more combinations than the limit
	for i := range many {
		many[i] = fmt.Sprint("x", i)
	}
	resources := rbacv1.PolicyRule{Verbs: many, APIGroups: []string{""}, Resources: many}
	urls := rbacv1.PolicyRule{Verbs: many, NonResourceURLs: many}
	for _, tt := range []struct {
		user string
		rule rbacv1.PolicyRule
		want bool
	}{{"ann", resources, true}, {"bob", urls, true}, {"ann", urls, false}, {"bob", resources, false}} {
		if ok, _ := x.Covers(tt.user, nil, "", []rbacv1.PolicyRule{tt.rule}); ok != tt.want {
			t.Errorf("%s, %d resources, %d URLs: covered %v, want %v", tt.user, len(tt.rule.Resources), len(tt.rule.NonResourceURLs), ok, tt.want)
		}
	}
}

func TestRuleAllows(t *testing.T) {
	t.Parallel()
	rule := readRules("pods")[0]
	if !rbac.RuleAllows(&rule, rbac.Request{Verb: "get", ResourceRequest: true, Resource: "pods"}) {
		t.Error("get pods not allowed")
	}
	if rbac.RuleAllows(&rule, rbac.Request{Verb: "get", ResourceRequest: true, Resource: "pods", Subresource: "log"}) {
		t.Error("get pods/log allowed")
	}
}

func TestRolesReturnsExistingRoles(t *testing.T) {
	t.Parallel()
	x := rbac.NewIndex()
	rules := []rbacv1.PolicyRule{{Verbs: []string{"get"}}}
	x.SetClusterRole(&rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: "unbound"}, Rules: rules})
	x.SetRole(&rbacv1.Role{ObjectMeta: metav1.ObjectMeta{Namespace: "a", Name: "unbound"}, Rules: rules})
	x.SetRole(&rbacv1.Role{ObjectMeta: metav1.ObjectMeta{Namespace: "a", Name: "gone"}, Rules: rules})
	x.SetClusterRoleBinding(&rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: "b"}, RoleRef: rbacv1.RoleRef{Kind: "ClusterRole", Name: "missing"}, Subjects: []rbacv1.Subject{{Kind: "User", Name: "ann"}},
	})
	x.Delete(rbac.Ref{Kind: rbac.Role, Namespace: "a", Name: "gone"}, "")
	got := map[rbac.Ref]int{}
	for ref, rules := range x.Roles() {
		got[ref] = len(rules)
	}
	if len(got) != 2 || got[rbac.Ref{Kind: rbac.ClusterRole, Name: "unbound"}] != 1 || got[rbac.Ref{Kind: rbac.Role, Namespace: "a", Name: "unbound"}] != 1 {
		t.Errorf("roles %v", got)
	}
}
