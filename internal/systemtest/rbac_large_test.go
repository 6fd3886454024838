// Promise: dangling, circular, huge and malformed policies harm nothing.

package systemtest

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	authorizationv1 "k8s.io/api/authorization/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"lanyard.dev/internal/cli"
	"lanyard.dev/lanyardtest"
)

// policyTest is an authority for one test, because a huge policy would slow down the tests that share one.
type policyTest struct {
	*kubernetes.Clientset
	t *testing.T
}

func newPolicyTest(t *testing.T) policyTest {
	t.Helper()
	return policyTest{clientFor(t, lanyardtest.Start(t).Config()), t}
}

func (b policyTest) role(name string, rules ...rbacv1.PolicyRule) error {
	role := &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: name}, Rules: rules}
	_, err := b.RbacV1().ClusterRoles().Create(b.t.Context(), role, metav1.CreateOptions{})
	return err
}

func (b policyTest) bind(name, role string, users ...string) error {
	binding := &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: role},
	}
	for _, user := range users {
		binding.Subjects = append(binding.Subjects, rbacv1.Subject{APIGroup: rbacv1.GroupName, Kind: "User", Name: user})
	}
	_, err := b.RbacV1().ClusterRoleBindings().Create(b.t.Context(), binding, metav1.CreateOptions{})
	return err
}

// check reviews whether a user may get a resource of the core group, and returns the reason.
func (b policyTest) check(user, resource string, want bool) (reason string) {
	b.t.Helper()
	review := &authorizationv1.SubjectAccessReview{Spec: authorizationv1.SubjectAccessReviewSpec{
		User: user, ResourceAttributes: &authorizationv1.ResourceAttributes{Verb: "get", Resource: resource},
	}}
	answer, err := b.AuthorizationV1().SubjectAccessReviews().Create(b.t.Context(), review, metav1.CreateOptions{})
	if err != nil {
		b.t.Fatal(err)
	}
	if answer.Status.Allowed != want {
		b.t.Errorf("%s may get %s: %v (%s), want %v", user, resource, answer.Status.Allowed, answer.Status.Reason, want)
	}
	return answer.Status.Reason
}

func getRule(resources ...string) rbacv1.PolicyRule {
	return rbacv1.PolicyRule{Verbs: []string{"get"}, APIGroups: []string{""}, Resources: resources}
}

func TestDanglingPolicy(t *testing.T) {
	t.Parallel()
	b := newPolicyTest(t)
	must(t, b.bind("lost", "gone", "ann", "nobody-by-this-name"))
	if reason := b.check("ann", "pods", false); reason != `RBAC: clusterrole.rbac.authorization.k8s.io "gone" not found` {
		t.Errorf("reason %q", reason)
	}
	must(t, b.role("gone", getRule("pods")))
	b.check("ann", "pods", true)
	must(t, b.RbacV1().ClusterRoles().Delete(t.Context(), "gone", metav1.DeleteOptions{}))
	b.check("ann", "pods", false)
}

// numbered returns n names with the prefix.
func numbered(prefix string, n int) []string {
	names := make([]string, n)
	for i := range names {
		names[i] = fmt.Sprintf("%s-%d", prefix, i)
	}
	return names
}

func TestHugePolicy(t *testing.T) {
	t.Parallel()
	b := newPolicyTest(t)
	must(t, b.bind("many-subjects", "many-rules", numbered("user", 10_000)...))
	var rules []rbacv1.PolicyRule
	for _, resource := range numbered("resource", 10_000) {
		rules = append(rules, getRule(resource))
	}
	must(t, b.role("many-rules", rules...))
	b.check("user-0", "resource-9999", true)
	b.check("user-9999", "resource-0", true)
	b.check("user-9999", "resource-10000", false)
	b.check("user-10000", "resource-0", false)

	// The error names the one invalid entry among ten thousand.
	rules[7531].Verbs = nil
	if err := b.role("faulty", rules...); !apierrors.IsInvalid(err) || !strings.Contains(err.Error(), "rules[7531].verbs: Required value") {
		t.Errorf("a rule without verbs: %v", err)
	}
	users := numbered("user", 10_000)
	users[9876] = ""
	if err := b.bind("faulty", "view", users...); !apierrors.IsInvalid(err) || !strings.Contains(err.Error(), "subjects[9876].name: Required value") {
		t.Errorf("a subject without a name: %v", err)
	}
	b.checkSizeLimits()
}

// checkSizeLimits writes a role of 1 MiB, which is accepted, one that is too large for the store, and one that is too large
// for a request.
func (b policyTest) checkSizeLimits() {
	b.t.Helper()
	long := strings.Repeat("r", 100)
	must(b.t, b.role("one-mebibyte", getRule(numbered(long, 1<<20/110)...)))
	must(b.t, b.bind("one-mebibyte", "one-mebibyte", "mia"))
	b.check("mia", long+"-9000", true)
	err := b.role("two-mebibytes", getRule(numbered(long, 2<<20/110)...))
	if !apierrors.IsInvalid(err) || !strings.Contains(err.Error(), "rules: Too long: may not be more than 1441792 bytes") {
		b.t.Errorf("a role of 2 MiB: %.300v", err)
	}
	if err := b.bind("two-mebibytes", "view", numbered(long, 2<<20/140)...); !apierrors.IsInvalid(err) || !strings.Contains(err.Error(), "subjects: Too long") {
		b.t.Errorf("a binding of 2 MiB: %.300v", err)
	}
	if err := b.role("four-mebibytes", getRule(numbered(long, 4<<20/110)...)); !apierrors.IsRequestEntityTooLargeError(err) {
		b.t.Errorf("a role of 4 MiB: %.300v", err)
	}
	b.check("mia", "pods", false) // the server still answers
}

// TestCircularAggregation creates roles that aggregate themselves and each other.
func TestCircularAggregation(t *testing.T) {
	t.Parallel()
	b := newPolicyTest(t)
	circle := []string{"a", "b", "c"}
	for i, name := range circle {
		role := &rbacv1.ClusterRole{
			ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"to-" + name: "yes", "to-" + circle[(i+1)%3]: "yes"}},
			Rules:      []rbacv1.PolicyRule{getRule(name)},
			AggregationRule: &rbacv1.AggregationRule{ClusterRoleSelectors: []metav1.LabelSelector{
				{MatchLabels: map[string]string{"to-" + name: "yes"}},
			}},
		}
		_, err := b.RbacV1().ClusterRoles().Create(t.Context(), role, metav1.CreateOptions{})
		must(t, err)
	}
	leaf := &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: "leaf", Labels: map[string]string{"to-b": "yes"}}, Rules: []rbacv1.PolicyRule{getRule("leaf")}}
	_, err := b.RbacV1().ClusterRoles().Create(t.Context(), leaf, metav1.CreateOptions{})
	must(t, err)
	for _, name := range circle {
		b.awaitRules(name, "leaf")
	}
	must(t, b.RbacV1().ClusterRoles().Delete(t.Context(), "leaf", metav1.DeleteOptions{}))
	for _, name := range circle {
		b.awaitRules(name)
	}
}

// awaitRules waits until the role has one rule for each resource.
func (b policyTest) awaitRules(name string, want ...string) {
	b.t.Helper()
	eventually(b.t, fmt.Sprintf("cluster role %s has rules for %v", name, want), func(ctx context.Context) bool {
		role, err := b.RbacV1().ClusterRoles().Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			return false
		}
		var got []string
		for _, r := range role.Rules {
			got = append(got, r.Resources...)
		}
		return slices.Equal(got, want)
	})
}

// TestAccessReadsInPages creates more bindings than fit on a page, and counts the requests of lanyard access.
func TestAccessReadsInPages(t *testing.T) {
	t.Parallel()
	a := lanyardtest.Start(t)
	config := rest.CopyConfig(a.Config())
	config.QPS = -1
	client := clientFor(t, config)
	const bindings = 1100
	for i := range bindings {
		binding := &rbacv1.RoleBinding{
			ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprint("b", i)},
			RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "view"},
			Subjects:   []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Namespace: "default", Name: fmt.Sprint("a", i)}},
		}
		if _, err := client.RbacV1().RoleBindings("default").Create(t.Context(), binding, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	var pages atomic.Int64
	kubeconfig := proxied(t, config, func(r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/rolebindings") {
			pages.Add(1)
		}
	})
	var out, errs bytes.Buffer
	if code := cli.Run([]string{"access", "who-can", "get", "pods", "--kubeconfig", kubeconfig}, nil, &out, &errs); code != 0 {
		t.Fatalf("exit code %d: %s", code, errs.String())
	}
	if n := strings.Count(out.String(), "ServiceAccount/default/a"); n != bindings {
		t.Errorf("%d of %d accounts found", n, bindings)
	}
	if n := pages.Load(); n != 3 {
		t.Errorf("%d requests for role bindings, want 3", n)
	}
	if strings.Contains(errs.String(), "reading") {
		t.Errorf("progress is shown without a terminal: %q", errs.String())
	}
}

// proxied returns a kubeconfig for a proxy that adds the administrator's credentials. see is called with each request.
func proxied(t *testing.T, config *rest.Config, see func(*http.Request)) (file string) {
	t.Helper()
	target, err := url.Parse(config.Host)
	if err != nil {
		t.Fatal(err)
	}
	proxy := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(target) }}
	if proxy.Transport, err = rest.TransportFor(config); err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		see(r)
		proxy.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	file = filepath.Join(t.TempDir(), "kubeconfig")
	written := clientcmdapi.NewConfig()
	written.Clusters["proxy"] = &clientcmdapi.Cluster{Server: server.URL}
	written.Contexts["proxy"] = &clientcmdapi.Context{Cluster: "proxy"}
	written.CurrentContext = "proxy"
	if err := clientcmd.WriteToFile(*written, file); err != nil {
		t.Fatal(err)
	}
	return file
}
