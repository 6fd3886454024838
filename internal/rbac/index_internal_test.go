package rbac

import (
	"hash/maphash"
	"testing"

	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// bound returns a binding of the ClusterRole "r" to users, and to an account that cannot match any user.
func bound(name string, users ...string) *binding {
	subjects := []rbacv1.Subject{{Kind: "ServiceAccount", Name: "names no namespace"}}
	for _, u := range users {
		subjects = append(subjects, rbacv1.Subject{Kind: "User", Name: u})
	}
	return newBinding(Ref{Kind: ClusterRoleBinding, Name: name}, rbacv1.RoleRef{Kind: "ClusterRole", Name: "r"}, subjects)
}

// TestReplacedBindingKeepsItsSubjects checks that a binding that is replaced grants its role all the time to the subjects
// that it keeps. Readers do not wait for the writer, so they may decide between its two steps.
func TestReplacedBindingKeepsItsSubjects(t *testing.T) {
	t.Parallel()
	x := NewIndex()
	x.SetClusterRole(&rbacv1.ClusterRole{
		ObjectMeta: metav1.ObjectMeta{Name: "r"},
		Rules:      []rbacv1.PolicyRule{{Verbs: []string{"get"}, APIGroups: []string{""}, Resources: []string{"pods"}}},
	})
	before, after := bound("b", "ann", "bob"), bound("b", "bob")
	x.setBinding(before, "1")
	x.removeGrants(before, after)
	for user, want := range map[string]bool{"ann": false, "bob": true} {
		if got := x.Authorize(Request{User: user, Verb: "get", ResourceRequest: true, Resource: "pods"}).Allowed; got != want {
			t.Errorf("between the two steps: %s may get pods: %v, want %v", user, got, want)
		}
	}
}

// TestDanglingIsExact checks the number of missing roles. If it is zero, denials have no reason; if not, they cost more.
func TestDanglingIsExact(t *testing.T) {
	t.Parallel()
	x := NewIndex()
	role := &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: "r"}}
	remove := func(kind Kind, name string) func() { return func() { x.Delete(Ref{Kind: kind, Name: name}, "") } }
	for i, step := range []struct {
		do          func()
		want, slots int
	}{
		{func() { x.setBinding(bound("b"), "") }, 0, 0}, // matches no user
		{func() { x.setBinding(bound("b", "ann"), "") }, 1, 1},
		{func() { x.setBinding(bound("c", "bob"), "") }, 1, 1},
		{func() { x.SetClusterRole(role) }, 0, 1},
		{func() { x.SetClusterRole(role) }, 0, 1},
		{func() { x.setBinding(bound("d", "carl"), "") }, 0, 1},
		{remove(ClusterRole, "r"), 1, 1},
		{remove(ClusterRoleBinding, "b"), 1, 1},
		{remove(ClusterRoleBinding, "c"), 1, 1},
		{remove(ClusterRoleBinding, "d"), 0, 0},
	} {
		step.do()
		if got := int(x.dangling.Load()); got != step.want || len(x.slots) != step.slots {
			t.Errorf("after step %d: %d missing of %d roles, want %d of %d", i+1, got, len(x.slots), step.want, step.slots)
		}
	}
	if len(x.deleted) != 0 {
		t.Errorf("deletions without a version are remembered: %v", x.deleted)
	}
}

// TestHashCollision checks that two identities with the same hash are distinguished.
func TestHashCollision(t *testing.T) {
	t.Parallel()
	table := scopeTable{seed: maphash.MakeSeed()}
	ann, bob := &scope{key: scopeKey{name: "ann"}}, &scope{key: scopeKey{name: "bob"}}
	h := table.hashOf(ann)
	cells := &shard{cells: make([]cell, 8)}
	table.shards[h%shards].Store(cells)
	cells.put(h, bob)
	if got := table.load(&ann.key); got != nil {
		t.Errorf("ann is taken for %s", got.key.name)
	}
	cells.put(h, ann)
	if got := table.load(&ann.key); got != ann {
		t.Errorf("ann is not found: %+v", got)
	}
	table.remove(ann)
	if got := table.load(&ann.key); got != nil {
		t.Errorf("ann is removed, and found as %s", got.key.name)
	}
	left := 0
	for i := range cells.cells {
		if cells.cells[i].scope.Load() == bob {
			left++
		}
	}
	if left != 1 {
		t.Errorf("bob is there %d times after ann was removed", left)
	}
}
