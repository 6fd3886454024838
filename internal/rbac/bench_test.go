package rbac_test

import (
	"fmt"
	"runtime"
	"testing"

	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"lanyard.dev/internal/rbac"
)

func readRules(resource string) []rbacv1.PolicyRule {
	return []rbacv1.PolicyRule{{Verbs: []string{"get", "list"}, APIGroups: []string{""}, Resources: []string{resource}}}
}

func namedMeta(namespace, name string) metav1.ObjectMeta {
	return metav1.ObjectMeta{Namespace: namespace, Name: name}
}

func accountBinding(i int) *rbacv1.RoleBinding {
	ns := fmt.Sprint("ns", i%500)
	name := fmt.Sprint("account", i)
	return &rbacv1.RoleBinding{
		ObjectMeta: namedMeta(ns, name),
		RoleRef:    rbacv1.RoleRef{Kind: "ClusterRole", Name: "reader"},
		Subjects:   []rbacv1.Subject{{Kind: "ServiceAccount", Name: name, Namespace: ns}},
	}
}

// benchIndex returns an index of n RoleBindings, each of another account to the same ClusterRole.
func benchIndex(n int) *rbac.Index {
	x := rbac.NewIndex()
	x.SetClusterRole(&rbacv1.ClusterRole{ObjectMeta: namedMeta("", "reader"), Rules: readRules("pods")})
	for i := range n {
		x.SetRoleBinding(accountBinding(i))
	}
	return x
}

func accountRequest(verb string) rbac.Request {
	return rbac.Request{
		User:   "system:serviceaccount:ns7:account7",
		Groups: []string{"system:serviceaccounts", "system:serviceaccounts:ns7", "system:authenticated"},
		Verb:   verb, ResourceRequest: true, Resource: "pods", Name: "p", Namespace: "ns7",
	}
}

func BenchmarkAuthorize(b *testing.B) {
	for _, n := range []int{10, 1000, 100_000} {
		x := benchIndex(n)
		for verb, want := range map[string]bool{"get": true, "delete": false} {
			b.Run(fmt.Sprintf("bindings=%d/allowed=%v", n, want), func(b *testing.B) {
				benchAuthorize(b, x, accountRequest(verb), want)
			})
		}
	}
}

func benchAuthorize(b *testing.B, x *rbac.Index, req rbac.Request, want bool) {
	b.ReportAllocs()
	for b.Loop() {
		if x.Authorize(req).Allowed != want {
			b.Fatal("wrong decision")
		}
	}
}

func BenchmarkAuthorizeParallel(b *testing.B) {
	x, req := benchIndex(1000), accountRequest("get")
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if !x.Authorize(req).Allowed {
				b.Error("denied")
				return
			}
		}
	})
}

// BenchmarkAuthorizeManyRoles authorizes a member of a group with n distinct roles.
func BenchmarkAuthorizeManyRoles(b *testing.B) {
	for _, n := range []int{8, 1000, 100_000} {
		x := rbac.NewIndex()
		for i := range n {
			bindDistinct(x, i)
		}
		req := accountRequest("get")
		req.Resource = fmt.Sprint("things", n/2)
		b.Run(fmt.Sprintf("roles=%d/allowed=true", n), func(b *testing.B) { benchAuthorize(b, x, req, true) })
		req.Verb = "delete"
		b.Run(fmt.Sprintf("roles=%d/allowed=false", n), func(b *testing.B) { benchAuthorize(b, x, req, false) })
	}
}

func bindDistinct(x *rbac.Index, i int) {
	name := fmt.Sprint("role", i)
	x.SetClusterRole(&rbacv1.ClusterRole{ObjectMeta: namedMeta("", name), Rules: readRules(fmt.Sprint("things", i))})
	x.SetClusterRoleBinding(authenticatedBinding(name, name))
}

func authenticatedBinding(name, role string) *rbacv1.ClusterRoleBinding {
	return &rbacv1.ClusterRoleBinding{
		ObjectMeta: namedMeta("", name),
		RoleRef:    rbacv1.RoleRef{Kind: "ClusterRole", Name: role},
		Subjects:   []rbacv1.Subject{{Kind: "Group", Name: "system:authenticated"}},
	}
}

func BenchmarkReason(b *testing.B) {
	x, req := benchIndex(10), accountRequest("get")
	b.ReportAllocs()
	for b.Loop() {
		if x.Authorize(req).Reason() == "" {
			b.Fatal("no reason")
		}
	}
}

// BenchmarkBindingWrite adds and removes one binding among n.
func BenchmarkBindingWrite(b *testing.B) {
	for _, n := range []int{10, 1000, 100_000} {
		x := benchIndex(n)
		extra := accountBinding(n + 1)
		b.Run(fmt.Sprintf("bindings=%d", n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				x.SetRoleBinding(extra)
				x.Delete(rbac.Ref{Kind: rbac.RoleBinding, Namespace: extra.Namespace, Name: extra.Name}, "")
			}
		})
	}
}

// BenchmarkBindingWriteOneSubject adds and removes one of n bindings of the same group, all to one role or each to another.
func BenchmarkBindingWriteOneSubject(b *testing.B) {
	const n = 100_000
	same, distinct := rbac.NewIndex(), rbac.NewIndex()
	same.SetClusterRole(&rbacv1.ClusterRole{ObjectMeta: namedMeta("", "reader"), Rules: readRules("pods")})
	for i := range n {
		same.SetClusterRoleBinding(authenticatedBinding(fmt.Sprint("role", i), "reader"))
		bindDistinct(distinct, i)
	}
	for name, x := range map[string]*rbac.Index{"same": same, "distinct": distinct} {
		extra := authenticatedBinding("role5x", map[string]string{"same": "reader", "distinct": "role5x"}[name])
		x.SetClusterRole(&rbacv1.ClusterRole{ObjectMeta: namedMeta("", "role5x"), Rules: readRules("pods")})
		b.Run("roles="+name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				x.SetClusterRoleBinding(extra)
				x.Delete(rbac.Ref{Kind: rbac.ClusterRoleBinding, Name: extra.Name}, "")
			}
		})
	}
}

// BenchmarkRoleWrite changes a role that 100,000 bindings refer to.
func BenchmarkRoleWrite(b *testing.B) {
	x := benchIndex(100_000)
	versions := [2]*rbacv1.ClusterRole{
		{ObjectMeta: namedMeta("", "reader"), Rules: readRules("pods")},
		{ObjectMeta: namedMeta("", "reader"), Rules: readRules("secrets")},
	}
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		x.SetClusterRole(versions[i&1])
		i++
	}
}

// BenchmarkLoad fills an index with 100,000 bindings and reports its memory, without the memory of the API objects.
func BenchmarkLoad(b *testing.B) {
	const n = 100_000
	objects := make([]*rbacv1.RoleBinding, n)
	for i := range objects {
		objects[i] = accountBinding(i)
	}
	before := heap()
	var x *rbac.Index
	for b.Loop() {
		x = rbac.NewIndex()
		for _, o := range objects {
			x.SetRoleBinding(o)
		}
	}
	b.ReportMetric(float64(heap()-before)/(1<<20), "MiB/100k-bindings")
	runtime.KeepAlive(x)
	runtime.KeepAlive(objects)
}

func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
