package bootstrap_test

import (
	"flag"
	"os"
	"slices"
	"strings"
	"testing"

	rbacv1 "k8s.io/api/rbac/v1"
	"sigs.k8s.io/yaml"

	"lanyard.dev/internal/rbac"
	"lanyard.dev/internal/rbac/bootstrap"
)

var update = flag.Bool("update", false, "rewrite testdata from the code")

// defaults is an index of the default policy. The users admin, edit and view have the ClusterRole of their name in
// namespace "a", through a RoleBinding.
func defaults() *rbac.Index {
	x := rbac.NewIndex()
	for _, r := range bootstrap.ClusterRoles() {
		x.SetClusterRole(r)
	}
	for _, b := range bootstrap.ClusterRoleBindings() {
		x.SetClusterRoleBinding(b)
	}
	for _, name := range []string{"admin", "edit", "view"} {
		b := &rbacv1.RoleBinding{
			RoleRef:  rbacv1.RoleRef{Kind: "ClusterRole", Name: name},
			Subjects: []rbacv1.Subject{{Kind: "User", Name: name}},
		}
		b.Namespace, b.Name = "a", name
		x.SetRoleBinding(b)
	}
	return x
}

const all = "get list watch create update patch delete deletecollection"

func TestUserRoles(t *testing.T) {
	t.Parallel()
	x := defaults()
	for _, c := range []struct {
		group, resource   string
		view, edit, admin string // the verbs that are allowed
	}{
		{"", "pods", "get list watch", all, all},
		{"", "pods/log", "get list watch", "get list watch", "get list watch"},
		{"", "pods/status", "get list watch", "get list watch", "get list watch"},
		{"", "pods/exec", "", all, all},
		{"", "pods/eviction", "", "create", "create"},
		{"", "configmaps", "get list watch", all, all},
		{"", "secrets", "", all, all},
		{"", "serviceaccounts", "get list watch", all + " impersonate", all + " impersonate"},
		{"", "serviceaccounts/token", "", "create", "create"},
		{"", "events", "get list watch", all, all},
		{"", "namespaces", "get list watch", "get list watch", "get list watch"},
		{"", "nodes", "", "", ""},
		{"", "users", "", "", ""},
		{"coordination.k8s.io", "leases", "", all, all},
		{"rbac.authorization.k8s.io", "roles", "", "", all},
		{"rbac.authorization.k8s.io", "rolebindings", "", "", all},
		{"rbac.authorization.k8s.io", "clusterroles", "", "", ""},
		{"rbac.authorization.k8s.io", "clusterrolebindings", "", "", ""},
		{"authorization.k8s.io", "localsubjectaccessreviews", "", "", "create"},
		{"authorization.k8s.io", "subjectaccessreviews", "", "", ""},
		{"authentication.k8s.io", "tokenreviews", "", "", ""},
		{"certificates.k8s.io", "certificatesigningrequests", "", "", ""},
		{"identity.lanyard.dev", "issuedtokens", "", "", "get list watch delete deletecollection"},
		{"identity.lanyard.dev", "issuedcertificates", "", "", ""},
		{"apps", "deployments", "get list watch", all, all},
		{"apps", "deployments/status", "get list watch", "get list watch", "get list watch"},
		{"batch", "jobs", "get list watch", all, all},
		{"networking.k8s.io", "networkpolicies", "get list watch", all, all},
		{"policy", "poddisruptionbudgets", "get list watch", all, all},
		{"", "resourcequotas", "get list watch", "get list watch", "get list watch"},
	} {
		for user, verbs := range map[string]string{"view": c.view, "edit": c.edit, "admin": c.admin} {
			checkVerbs(t, x, user, c.group, c.resource, strings.Fields(verbs))
		}
	}
}

func checkVerbs(t *testing.T, x *rbac.Index, user, group, resource string, want []string) {
	t.Helper()
	resource, sub, _ := strings.Cut(resource, "/")
	for _, verb := range append(strings.Fields(all), "impersonate", "bind", "escalate") {
		req := rbac.Request{
			User: user, Verb: verb, ResourceRequest: true, APIGroup: group, Resource: resource, Subresource: sub, Namespace: "a",
		}
		if got := x.Authorize(req).Allowed; got != slices.Contains(want, verb) {
			t.Errorf("%s: %s %s/%s in group %q: allowed %v", user, verb, resource, sub, group, got)
		}
		req.Namespace = "b"
		if x.Authorize(req).Allowed {
			t.Errorf("%s: %s %s/%s is allowed in a namespace without binding", user, verb, resource, sub)
		}
	}
}

func TestPaths(t *testing.T) {
	t.Parallel()
	x := defaults()
	const (
		anonymous = "system:unauthenticated"
		signedIn  = "system:authenticated"
		account   = "system:serviceaccounts"
		monitor   = "system:monitoring"
		master    = "system:masters"
	)
	for path, want := range map[string][]string{
		"/healthz":                          {anonymous, signedIn, monitor, master},
		"/livez":                            {anonymous, signedIn, monitor, master},
		"/readyz":                           {anonymous, signedIn, monitor, master},
		"/readyz/etcd":                      {monitor, master},
		"/version":                          {anonymous, signedIn, master},
		"/metrics":                          {monitor, master},
		"/api":                              {signedIn, master},
		"/apis/apps/v1":                     {signedIn, master},
		"/openapi/v3":                       {signedIn, master},
		"/.well-known/openid-configuration": {anonymous, signedIn, account, master},
		"/openid/v1/jwks":                   {anonymous, signedIn, account, master},
		"/openid/v1/jwks/":                  {anonymous, signedIn, account, master},
		"/openid/v1/other":                  {master},
		"/debug/pprof":                      {master},
		"/":                                 {master},
	} {
		for _, group := range []string{anonymous, signedIn, account, monitor, master} {
			req := rbac.Request{User: "x", Groups: []string{group}, Verb: "get", Path: path}
			if got := x.Authorize(req).Allowed; got != slices.Contains(want, group) {
				t.Errorf("group %s, path %s: allowed %v", group, path, got)
			}
			req.Verb = "post"
			if got := x.Authorize(req).Allowed; got != (group == master) {
				t.Errorf("group %s may post to %s: %v", group, path, got)
			}
		}
	}
}

func TestSelfReviewsNeedAuthentication(t *testing.T) {
	t.Parallel()
	x := defaults()
	for group, want := range map[string]bool{"system:authenticated": true, "system:unauthenticated": false} {
		req := rbac.Request{
			User: "x", Groups: []string{group}, Verb: "create", ResourceRequest: true,
			APIGroup: "authorization.k8s.io", Resource: "selfsubjectaccessreviews",
		}
		if got := x.Authorize(req).Allowed; got != want {
			t.Errorf("%s: allowed %v, want %v", group, got, want)
		}
	}
}

func TestLabelsAndReferences(t *testing.T) {
	t.Parallel()
	names := map[string]bool{}
	for _, r := range bootstrap.ClusterRoles() {
		names[r.Name] = true
		if r.Labels["kubernetes.io/bootstrapping"] != "rbac-defaults" ||
			r.Annotations["rbac.authorization.kubernetes.io/autoupdate"] != "true" {
			t.Errorf("ClusterRole %s: labels %v, annotations %v", r.Name, r.Labels, r.Annotations)
		}
		if len(r.Rules) == 0 {
			t.Errorf("ClusterRole %s has no rules", r.Name)
		}
	}
	for _, b := range bootstrap.ClusterRoleBindings() {
		if !names[b.RoleRef.Name] {
			t.Errorf("ClusterRoleBinding %s refers to unknown ClusterRole %s", b.Name, b.RoleRef.Name)
		}
		if b.RoleRef.Name == "system:node" {
			t.Error("system:node must not be bound")
		}
		if b.Annotations["rbac.authorization.kubernetes.io/autoupdate"] != "true" {
			t.Errorf("ClusterRoleBinding %s is not auto-updated", b.Name)
		}
	}
}

// TestGolden compares the defaults with a file, so that a review shows each change. Run it with -update to rewrite the
// file.
func TestGolden(t *testing.T) {
	t.Parallel()
	got, err := yaml.Marshal(map[string]any{
		"clusterRoles": bootstrap.ClusterRoles(), "clusterRoleBindings": bootstrap.ClusterRoleBindings(),
		"controllerRoles": bootstrap.ControllerRoles(), "controllerRoleBindings": bootstrap.ControllerRoleBindings(),
		"roles": bootstrap.Roles(), "roleBindings": bootstrap.RoleBindings(),
	})
	if err != nil {
		t.Fatal(err)
	}
	const file = "testdata/defaults.yaml"
	if *update {
		if err := os.WriteFile(file, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != string(want) {
		t.Errorf("the defaults differ from %s; run the test with -update and read the difference", file)
	}
}

func TestRightsOfMachinesThatJoin(t *testing.T) {
	t.Parallel()
	x := defaults()
	for _, c := range []struct {
		group, verb, sub string
		want             bool
	}{
		{"system:bootstrappers", "create", "", true},
		{"system:bootstrappers", "get", "", true},
		{"system:bootstrappers", "create", "nodeclient", true},
		{"system:bootstrappers", "create", "selfnodeclient", false},
		{"system:bootstrappers", "update", "approval", false},
		{"system:bootstrappers", "delete", "", false},
		{"system:nodes", "create", "selfnodeclient", true},
		{"system:nodes", "create", "nodeclient", false},
		{"system:nodes", "create", "", false}, // the node authorizer allows it
		{"system:authenticated", "create", "nodeclient", false},
		{"system:authenticated", "create", "", false},
	} {
		got := x.Authorize(rbac.Request{
			User: "x", Groups: []string{c.group}, Verb: c.verb, ResourceRequest: true,
			APIGroup: "certificates.k8s.io", Resource: "certificatesigningrequests", Subresource: c.sub,
		}).Allowed
		if got != c.want {
			t.Errorf("%s: %s certificatesigningrequests/%s: allowed %v", c.group, c.verb, c.sub, got)
		}
	}
}

// TestControllerIdentities checks that each controller has a role of its own that is bound to its user and to no other
// subject, and that its user is no service account, for which tokens can be issued.
func TestControllerIdentities(t *testing.T) {
	t.Parallel()
	const prefix = "system:controller:"
	bound := map[string]bool{}
	check := func(binding string, ref rbacv1.RoleRef, subjects []rbacv1.Subject) {
		bound[ref.Name] = true
		if len(subjects) != 1 || subjects[0].Kind != rbacv1.UserKind || subjects[0].Name != ref.Name || binding != ref.Name {
			t.Errorf("binding %s of role %s has the subjects %v", binding, ref.Name, subjects)
		}
	}
	for _, b := range bootstrap.ControllerRoleBindings() {
		check(b.Name, b.RoleRef, b.Subjects)
	}
	for _, b := range bootstrap.RoleBindings() {
		if strings.HasPrefix(b.Name, prefix) {
			check(b.Name, b.RoleRef, b.Subjects)
		}
	}
	for _, name := range bootstrap.Controllers() {
		user := bootstrap.ControllerUser(name)
		if !bound[user] || !strings.HasPrefix(user, prefix) {
			t.Errorf("controller %s has no role that is bound to it", name)
		}
		delete(bound, user)
	}
	for name := range bound {
		t.Errorf("role %s is of no controller", name)
	}
}
