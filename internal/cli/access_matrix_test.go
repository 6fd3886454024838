package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"

	"lanyard.dev/internal/access"
	"lanyard.dev/lanyardtest"
)

// reading is a resource as a user writes it, and the attributes that it means.
type reading struct {
	text, name                   string // the argument, and --name
	group, resource, sub, object string
	clusterScoped                bool
}

// readings contain each way to write a resource. The expected attributes do not come from the code under test.
var readings = []reading{
	{text: "pods", resource: "pods"}, {text: "po", resource: "pods"}, {text: "Pod", resource: "pods"}, {text: "pods.v1", resource: "pods"},
	{text: "pods/web", resource: "pods", object: "web"}, {text: "pods/log", resource: "pods", sub: "log"},
	{text: "pods/web/log", resource: "pods", sub: "log", object: "web"}, {text: "pods/log/web", resource: "pods", sub: "log", object: "web"},
	{text: "pods", name: "log", resource: "pods", object: "log"}, {text: "pods/log", name: "web", resource: "pods", sub: "log", object: "web"},
	{text: "pods/resize", resource: "pods", sub: "resize"}, {text: "pods/exec", resource: "pods", sub: "exec"},
	{text: "pods/finalizers", resource: "pods", sub: "finalizers"}, {text: "deployments/finalizers", group: "apps", resource: "deployments", sub: "finalizers"},
	{text: "nodes", resource: "nodes", clusterScoped: true}, {text: "no/n1", resource: "nodes", object: "n1", clusterScoped: true},
	{text: "nodes/metrics", resource: "nodes", sub: "metrics", clusterScoped: true}, {text: "nodes/stats", resource: "nodes", sub: "stats", clusterScoped: true},
	{text: "nodes/log", resource: "nodes", sub: "log", clusterScoped: true}, {text: "nodes/proxy", resource: "nodes", sub: "proxy", clusterScoped: true},
	{text: "nodes", name: "metrics", resource: "nodes", object: "metrics", clusterScoped: true},
	{text: "configmaps/fresh", resource: "configmaps", object: "fresh"}, {text: "cm", resource: "configmaps"},
	{text: "configmaps/status", resource: "configmaps", object: "status"}, {text: "secrets/token", resource: "secrets", object: "token"},
	{text: "Secrets", resource: "secrets"}, {text: "events", resource: "events"}, {text: "ev", resource: "events"},
	{text: "events.events.k8s.io", group: "events.k8s.io", resource: "events"}, {text: "event.v1.events.k8s.io/web", group: "events.k8s.io", resource: "events", object: "web"},
	{text: "serviceaccounts/token", resource: "serviceaccounts", sub: "token"}, {text: "sa/web/token", resource: "serviceaccounts", sub: "token", object: "web"},
	{text: "namespaces", resource: "namespaces", clusterScoped: true}, {text: "ns/a", resource: "namespaces", object: "a"},
	{text: "namespaces/a/finalize", resource: "namespaces", sub: "finalize", object: "a"},
	{text: "deployments", group: "apps", resource: "deployments"}, {text: "deploy/scale", group: "apps", resource: "deployments", sub: "scale"},
	{text: "deployments.apps/web", group: "apps", resource: "deployments", object: "web"},
	{text: "widgets", group: "example.com", resource: "widgets"}, {text: "widgets/frob", group: "example.com", resource: "widgets", sub: "frob"},
	{text: "widgets/status", group: "example.com", resource: "widgets", sub: "status"}, {text: "widgets/log", group: "example.com", resource: "widgets", object: "log"},
	{text: "widgets.example.com/web", group: "example.com", resource: "widgets", object: "web"},
	{text: "gears.example.com/web", group: "example.com", resource: "gears", object: "web"},
	{text: "userextras/scopes", group: "authentication.k8s.io", resource: "userextras", sub: "scopes", clusterScoped: true},
	{text: "users/ann", resource: "users", object: "ann", clusterScoped: true},
	{text: "csr/approval", group: "certificates.k8s.io", resource: "certificatesigningrequests", sub: "approval", clusterScoped: true},
	{text: "signers", name: "example.com/*", group: "certificates.k8s.io", resource: "signers", object: "example.com/*", clusterScoped: true},
	{text: "roles", group: "rbac.authorization.k8s.io", resource: "roles"},
	{text: "*", group: "*", resource: "*"}, {text: "*.apps", group: "apps", resource: "*"}, {text: "*/scale", group: "*", resource: "*", sub: "scale"},
	{text: "/healthz"}, {text: "/metrics"}, {text: "/api/v1"}, {text: "/logs/x"},
}

// review returns a SubjectAccessReview for the same request.
func (r *reading) review(verb, namespace string, s matrixSubject) authorizationv1.SubjectAccessReviewSpec {
	spec := authorizationv1.SubjectAccessReviewSpec{User: s.user, Groups: s.groups}
	if r.resource == "" {
		spec.NonResourceAttributes = &authorizationv1.NonResourceAttributes{Verb: verb, Path: r.text}
		return spec
	}
	switch {
	case r.clusterScoped:
		namespace = ""
	case r.resource == "namespaces":
		namespace = r.object
	}
	spec.ResourceAttributes = &authorizationv1.ResourceAttributes{
		Verb: verb, Group: r.group, Resource: r.resource, Subresource: r.sub, Name: r.object, Namespace: namespace,
	}
	return spec
}

type matrixSubject struct {
	text   string
	extra  []string // --group
	user   string
	groups []string
}

var matrixSubjects = []matrixSubject{
	{text: "user:ann", user: "ann", groups: []string{"system:authenticated"}},
	{text: "user:bob", extra: []string{"devs"}, user: "bob", groups: []string{"devs", "system:authenticated"}},
	{text: "group:devs", groups: []string{"devs", "system:authenticated"}},
	{text: "sa:a/x", user: "system:serviceaccount:a:x", groups: []string{"system:serviceaccounts", "system:serviceaccounts:a", "system:authenticated"}},
	{text: "system:serviceaccount:b:x", user: "system:serviceaccount:b:x", groups: []string{"system:serviceaccounts", "system:serviceaccounts:b", "system:authenticated"}},
	{text: "user:system:anonymous", user: "system:anonymous", groups: []string{"system:unauthenticated"}},
	{text: "user:root", extra: []string{"system:masters"}, user: "root", groups: []string{"system:masters", "system:authenticated"}},
}

// matrixPolicy returns random roles and bindings that a server accepts. Some names are also names of subresources.
func matrixPolicy(r *rand.Rand) []runtime.Object {
	pick := func(list ...string) string { return list[r.IntN(len(list))] }
	some := func(list ...string) (out []string) {
		for range 1 + r.IntN(3) {
			out = append(out, pick(list...))
		}
		return out
	}
	rules := func(urls bool) (out []rbacv1.PolicyRule) {
		for range 1 + r.IntN(3) {
			rule := rbacv1.PolicyRule{Verbs: some("get", "list", "create", "update", "patch", "delete", "impersonate", "use", "*")}
			if urls && r.IntN(5) == 0 {
				rule.NonResourceURLs = some("/healthz", "/metrics", "/logs/*", "/api/*", "*")
				out = append(out, rule)
				continue
			}
			rule.APIGroups = some("", "", "apps", "example.com", "events.k8s.io", "certificates.k8s.io", "*")
			rule.Resources = some("pods", "pods/log", "pods/exec", "nodes", "nodes/metrics", "nodes/stats", "configmaps", "secrets", "events", "serviceaccounts/token",
				"namespaces", "deployments", "deployments/scale", "widgets", "widgets/frob", "users", "userextras/scopes", "signers", "*/scale", "*/finalizers", "*")
			if r.IntN(3) == 0 {
				rule.ResourceNames = some("web", "log", "metrics", "fresh", "token", "a", "n1", "ann", "status")
			}
			out = append(out, rule)
		}
		return out
	}
	subjects := func() (out []rbacv1.Subject) {
		for range 1 + r.IntN(2) {
			switch r.IntN(5) {
			case 0:
				out = append(out, rbacv1.Subject{Kind: "Group", APIGroup: rbacv1.GroupName, Name: pick("devs", "devs", "system:serviceaccounts:a", "system:unauthenticated")})
			case 1, 2:
				out = append(out, rbacv1.Subject{Kind: "ServiceAccount", Namespace: pick("a", "b"), Name: "x"})
			default:
				out = append(out, rbacv1.Subject{Kind: "User", APIGroup: rbacv1.GroupName, Name: pick("ann", "bob", "carl")})
			}
		}
		return out
	}
	ref := func(kind, name string) rbacv1.RoleRef {
		return rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: kind, Name: name}
	}
	// This role is not bound. Its rules make the group of widgets known.
	named := []rbacv1.PolicyRule{{Verbs: []string{"get"}, APIGroups: []string{"example.com"}, Resources: []string{"widgets", "widgets/frob"}}}
	// This role is aggregated into the default role view.
	viewed := metav1.ObjectMeta{Name: "viewed", Labels: map[string]string{"rbac.authorization.k8s.io/aggregate-to-view": "true"}}
	gears := []rbacv1.PolicyRule{{Verbs: []string{"get"}, APIGroups: []string{"example.com"}, Resources: []string{"gears"}}}
	out := []runtime.Object{
		&rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: "unbound"}, Rules: named}, &rbacv1.ClusterRole{ObjectMeta: viewed, Rules: gears},
		&rbacv1.ClusterRoleBinding{ObjectMeta: metav1.ObjectMeta{Name: "viewed"}, RoleRef: ref("ClusterRole", "view"),
			Subjects: []rbacv1.Subject{{Kind: "User", APIGroup: rbacv1.GroupName, Name: "ann"}}},
	}
	for i := range 12 {
		meta := metav1.ObjectMeta{Name: fmt.Sprint("m", i)}
		out = append(out, &rbacv1.ClusterRole{ObjectMeta: meta, Rules: rules(true)},
			&rbacv1.ClusterRoleBinding{ObjectMeta: meta, RoleRef: ref("ClusterRole", fmt.Sprint("m", r.IntN(16))), Subjects: subjects()})
		for _, namespace := range []string{"a", "b"} {
			meta.Namespace = namespace
			out = append(out, &rbacv1.Role{ObjectMeta: meta, Rules: rules(false)},
				&rbacv1.RoleBinding{ObjectMeta: meta, RoleRef: ref(pick("Role", "ClusterRole"), pick("m1", "m2", "m3", "m13", "view")), Subjects: subjects()})
		}
	}
	return out
}

// question is one request of the matrix.
type question struct {
	reading         reading
	verb, namespace string
	subject         matrixSubject
}

// TestAccessAgreesWithTheServer compares thousands of answers of explain, for a cluster (three times) and for files, with
// SubjectAccessReviews for the same policy.
func TestAccessAgreesWithTheServer(t *testing.T) {
	t.Parallel()
	a := lanyardtest.Start(t)
	r := rand.New(rand.NewPCG(7, 3))
	policy := matrixPolicy(r)
	config := a.Config()
	config.QPS = -1
	config.ContentType = runtime.ContentTypeProtobuf
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	for _, namespace := range []string{"a", "b"} {
		if _, err := a.Client().CoreV1().Namespaces().Create(t.Context(), namespaceNamed(namespace), metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	file := filepath.Join(t.TempDir(), "policy.json")
	putFile(t, file, createAll(t, client, policy))

	awaitAggregation(t, client)

	questions := make([]question, 3000)
	for i := range questions {
		questions[i] = question{
			readings[r.IntN(len(readings))], pickVerb(r), []string{"a", "b", ""}[r.IntN(3)], matrixSubjects[r.IntN(len(matrixSubjects))],
		}
	}
	want := decideAll(t, client, questions)
	for _, source := range [][]string{{"--kubeconfig", a.Kubeconfig()}, {"--kubeconfig", a.Kubeconfig()}, {"--kubeconfig", a.Kubeconfig()}, {"-f", file}} {
		o := newExplainOptions(t, source)
		loaded, err := o.source.load(t.Context(), "a")
		if err != nil {
			t.Fatal(err)
		}
		loaded.server = nil // Do not request which objects exist.
		wrong := 0
		for i := range questions {
			if got := ask(t, loaded, &questions[i]); got.Allowed != want[i] {
				if wrong++; wrong > 10 {
					t.Fatalf("%q: more than 10 wrong answers", source)
				}
				t.Errorf("%q: %s %s %s %s -n %q: explain returns %v, the server %v; command %s", source, questions[i].subject.text, questions[i].verb,
					questions[i].reading.text, questions[i].reading.name, questions[i].namespace, got.Allowed, want[i], got.Target.Attributes(got.Verb))
			}
		}
	}
	checkBalance(t, want)
	wholeCommand(t, a, file, questions[:12], want)
}

// awaitAggregation waits until the role view contains the rules of the role viewed.
func awaitAggregation(t *testing.T, client kubernetes.Interface) {
	t.Helper()
	err := wait.PollUntilContextTimeout(t.Context(), 20*time.Millisecond, time.Minute, true, func(ctx context.Context) (bool, error) {
		view, err := client.RbacV1().ClusterRoles().Get(ctx, "view", metav1.GetOptions{})
		return err == nil && slices.ContainsFunc(view.Rules, func(r rbacv1.PolicyRule) bool { return slices.Contains(r.Resources, "gears") }), err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func checkBalance(t *testing.T, want []bool) {
	t.Helper()
	yes := 0
	for _, allowed := range want {
		if allowed {
			yes++
		}
	}
	if yes < len(want)/10 || yes > len(want)*9/10 {
		t.Errorf("%d of %d questions are answered yes: the generator no longer tests both", yes, len(want))
	}
}

func pickVerb(r *rand.Rand) string {
	verbs := []string{"get", "list", "create", "update", "patch", "delete", "deletecollection", "impersonate", "use", "burnish"}
	return verbs[r.IntN(len(verbs))]
}

// newExplainOptions returns the options that a command line with these flags sets.
func newExplainOptions(t *testing.T, source []string) *explainOptions {
	t.Helper()
	o := &explainOptions{}
	o.source.streams = streams{in: &bytes.Buffer{}, out: &bytes.Buffer{}, err: &bytes.Buffer{}}
	cmd := newGroup("test", "", "")
	o.source.addFlags(cmd)
	if err := cmd.ParseFlags(source); err != nil {
		t.Fatal(err)
	}
	return o
}

// ask answers a question as the command does.
func ask(t *testing.T, loaded *loadedPolicy, q *question) access.Explanation {
	t.Helper()
	target := targetOptions{verb: q.verb, text: q.reading.text, name: q.reading.name, allNamespaces: q.namespace == ""}
	loaded.namespace = q.namespace
	resolved, err := target.resolve(t.Context(), loaded)
	if err != nil {
		t.Fatalf("%s: %v", q.reading.text, err)
	}
	loaded.notes = nil
	s, err := access.ParseSubject(q.subject.text, q.subject.extra...)
	if err != nil {
		t.Fatal(err)
	}
	return loaded.policy.Explain(access.Question{Subject: s, Verb: q.verb, Target: resolved})
}

// createAll stores a policy in a cluster, and returns it as the content of a file.
func createAll(t *testing.T, client kubernetes.Interface, policy []runtime.Object) string {
	t.Helper()
	var file bytes.Buffer
	for _, o := range policy {
		var err error
		var kind string
		switch o := o.(type) {
		case *rbacv1.ClusterRole:
			kind = "ClusterRole"
			_, err = client.RbacV1().ClusterRoles().Create(t.Context(), o, metav1.CreateOptions{})
		case *rbacv1.ClusterRoleBinding:
			kind = "ClusterRoleBinding"
			_, err = client.RbacV1().ClusterRoleBindings().Create(t.Context(), o, metav1.CreateOptions{})
		case *rbacv1.Role:
			kind = "Role"
			_, err = client.RbacV1().Roles(o.Namespace).Create(t.Context(), o, metav1.CreateOptions{})
		case *rbacv1.RoleBinding:
			kind = "RoleBinding"
			_, err = client.RbacV1().RoleBindings(o.Namespace).Create(t.Context(), o, metav1.CreateOptions{})
		}
		if err != nil {
			t.Fatal(err)
		}
		o.GetObjectKind().SetGroupVersionKind(rbacv1.SchemeGroupVersion.WithKind(kind))
		if err := json.NewEncoder(&file).Encode(o); err != nil {
			t.Fatal(err)
		}
	}
	return file.String()
}

// decideAll returns the server's decisions. It makes several requests at once.
func decideAll(t *testing.T, client kubernetes.Interface, questions []question) []bool {
	t.Helper()
	answers := make([]bool, len(questions))
	group, ctx := errgroup.WithContext(t.Context())
	group.SetLimit(16)
	for i := range questions {
		group.Go(func() error {
			q := &questions[i]
			ask := &authorizationv1.SubjectAccessReview{Spec: q.reading.review(q.verb, q.namespace, q.subject)}
			review, err := client.AuthorizationV1().SubjectAccessReviews().Create(ctx, ask, metav1.CreateOptions{})
			if err != nil {
				return err
			}
			answers[i] = review.Status.Allowed
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	return answers
}

// wholeCommand asks some of the questions with the whole command, which also requests the server's decision.
func wholeCommand(t *testing.T, a *lanyardtest.Authority, file string, questions []question, want []bool) {
	t.Helper()
	for i, q := range questions {
		args := []string{"access", "explain", q.subject.text, q.verb, q.reading.text}
		for _, g := range q.subject.extra {
			args = append(args, "--group", g)
		}
		if q.reading.name != "" {
			args = append(args, "--name", q.reading.name)
		}
		if q.namespace == "" {
			args = append(args, "-A")
		} else {
			args = append(args, "-n", q.namespace)
		}
		for _, source := range [][]string{{"--kubeconfig", a.Kubeconfig()}, {"-f", file}} {
			got := run("", slices.Concat(args, source)...)
			if (got.code == 0) != want[i] {
				t.Errorf("%q %q: %+v, the server returns %v", args, source, got, want[i])
			}
		}
	}
}

func namespaceNamed(name string) *corev1.Namespace {
	return &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}
}
