package aggregation_test

import (
	"errors"
	"net/http"
	"os"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/registry/rest"

	"lanyard.dev/internal/apiserver/controllertest"
	"lanyard.dev/internal/apiserver/registry"
	"lanyard.dev/internal/apiserver/registry/storagetest"
	"lanyard.dev/internal/controller/aggregation"
	"lanyard.dev/internal/rbac/bootstrap"
)

func TestMain(m *testing.M) {
	os.Exit(controllertest.TestRoles(m, bootstrap.ClusterRoleAggregationController))
}

// cluster is a cluster with a controller that runs.
type cluster struct {
	t       *testing.T
	roles   *registry.Store
	changes chan *rbacv1.ClusterRole

	aggregates *aggregation.Controller
}

// start runs a controller whose client calls the wrappers.
func start(t *testing.T, wrappers ...func(http.RoundTripper) http.RoundTripper) *cluster {
	t.Helper()
	roles := rbacv1.Resource("clusterroles")
	made := controllertest.NewCluster(t, storagetest.Start(t), controllertest.Config{}, roles)
	c := &cluster{
		t: t, roles: made.Store(roles), changes: make(chan *rbacv1.ClusterRole, 1000),
		aggregates: aggregation.New(made.Client(bootstrap.ClusterRoleAggregationController, wrappers...)),
	}
	made.Feed(roles).Listen(c.aggregates)
	made.Feed(roles).Listen(follower{c.changes})
	made.Run(t, c.aggregates)
	return c
}

// follower passes on the changes of roles.
type follower struct{ changes chan *rbacv1.ClusterRole }

// Set implements mirror.Listener.
func (f follower) Set(obj runtime.Object) {
	if role, ok := obj.(*rbacv1.ClusterRole); ok {
		f.changes <- role.DeepCopy()
	}
}

// Delete implements mirror.Listener.
func (f follower) Delete(runtime.Object) {}

// create creates a role with one rule for a resource of its own name, the label to, and the aggregation of roles with
// the label from.
func (c *cluster) create(name, to, from string) {
	c.t.Helper()
	role := &rbacv1.ClusterRole{ObjectMeta: storagetest.Meta("", name), Rules: []rbacv1.PolicyRule{
		{Verbs: []string{"get"}, APIGroups: []string{""}, Resources: []string{name}},
	}}
	if to != "" {
		role.Labels = map[string]string{to: "true"}
	}
	if from != "" {
		role.AggregationRule = &rbacv1.AggregationRule{ClusterRoleSelectors: []metav1.LabelSelector{{MatchLabels: map[string]string{from: "true"}}}}
	}
	if _, err := c.roles.Create(storagetest.In(c.t, ""), role, rest.ValidateAllObjectFunc, &metav1.CreateOptions{}); err != nil {
		c.t.Fatalf("create %s: %v", name, err)
	}
}

func (c *cluster) change(name string, mutate func(*rbacv1.ClusterRole)) {
	c.t.Helper()
	_, _, err := c.roles.Update(storagetest.In(c.t, ""), name, controllertest.Change(mutate),
		rest.ValidateAllObjectFunc, rest.ValidateAllObjectUpdateFunc, false, &metav1.UpdateOptions{})
	if err != nil {
		c.t.Fatalf("update %s: %v", name, err)
	}
}

// await returns when the role's rules are for the resources want.
func (c *cluster) await(name string, want ...string) {
	c.t.Helper()
	late := time.After(20 * time.Second)
	var last []string
	for {
		select {
		case role := <-c.changes:
			if role.Name != name {
				continue
			}
			if last = resources(role); slices.Equal(last, want) {
				return
			}
		case <-late:
			c.t.Fatalf("%s did not come to %v; its last change was to %v", name, want, last)
		}
	}
}

func resources(role *rbacv1.ClusterRole) []string {
	var out []string
	for _, r := range role.Rules {
		out = append(out, r.Resources...)
	}
	return out
}

func (c *cluster) stored(name string) *rbacv1.ClusterRole {
	c.t.Helper()
	found, err := c.roles.Get(storagetest.In(c.t, ""), name, &metav1.GetOptions{})
	if err != nil {
		c.t.Fatal(err)
	}
	return found.(*rbacv1.ClusterRole)
}

func TestFollowsEveryChange(t *testing.T) {
	t.Parallel()
	c := start(t)
	c.create("whole", "", "x")
	c.await("whole")
	c.create("b", "x", "")
	c.await("whole", "b")
	c.create("a", "x", "")
	c.await("whole", "a", "b")
	c.create("unrelated", "", "")
	c.change("b", func(r *rbacv1.ClusterRole) { r.Rules[0].Resources[0] = "b2" })
	c.await("whole", "a", "b2")
	c.change("a", func(r *rbacv1.ClusterRole) { r.Labels = nil })
	c.await("whole", "b2")
	c.change("unrelated", func(r *rbacv1.ClusterRole) { r.Labels = map[string]string{"x": "true"} })
	c.await("whole", "b2", "unrelated")
	if _, _, err := c.roles.Delete(storagetest.In(t, ""), "b", rest.ValidateAllObjectFunc, &metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	c.await("whole", "unrelated")
	c.change("whole", func(r *rbacv1.ClusterRole) { r.Rules = append(r.Rules, r.Rules[0], r.Rules[0]) })
	c.await("whole", "unrelated")
	c.change("whole", func(r *rbacv1.ClusterRole) {
		r.AggregationRule.ClusterRoleSelectors[0].MatchLabels = map[string]string{"y": "true"}
	})
	c.await("whole")
}

// TestCirclesEnd has three roles that select each other in a circle: if rules were copied, they would be written
// without end.
func TestCirclesEnd(t *testing.T) {
	t.Parallel()
	c := start(t)
	c.create("p", "x", "y")
	c.create("q", "y", "z")
	c.create("r", "z", "x")
	c.create("self", "x", "x")
	c.create("leaf", "z", "")
	for _, name := range []string{"p", "q", "r", "self"} {
		c.settle(name, "leaf")
	}
	versions := map[string]string{}
	for _, name := range []string{"p", "q", "r", "self"} {
		versions[name] = c.stored(name).ResourceVersion
	}
	// When the controller has handled a later change, it has finished with the circle.
	c.create("probe", "", "w")
	c.await("probe")
	for name, version := range versions {
		if now := c.stored(name).ResourceVersion; now != version {
			t.Errorf("%s was written again: version %s, then %s", name, version, now)
		}
	}
}

// settle waits until the stored role has rules for the resources want. It checks after each change of any role.
func (c *cluster) settle(name string, want ...string) {
	c.t.Helper()
	late := time.After(20 * time.Second)
	for !slices.Equal(resources(c.stored(name)), want) {
		select {
		case <-c.changes:
		case <-late:
			c.t.Fatalf("%s has %v, want %v", name, resources(c.stored(name)), want)
		}
	}
}

func TestTriesAgain(t *testing.T) {
	t.Parallel()
	var writes atomic.Int64
	c := start(t, controllertest.Before(http.MethodPut, func(string) error {
		if writes.Add(1) <= 3 {
			return errors.New("no storage today")
		}
		return nil
	}))
	c.create("a", "x", "")
	c.create("whole", "", "x")
	c.await("whole", "a")
}

// TestMalformedSelectorLeavesTheRest reports a role that validation refuses.
func TestMalformedSelectorLeavesTheRest(t *testing.T) {
	t.Parallel()
	c := start(t)
	c.aggregates.Set(&rbacv1.ClusterRole{ObjectMeta: storagetest.Meta("", "broken"), AggregationRule: &rbacv1.AggregationRule{
		ClusterRoleSelectors: []metav1.LabelSelector{{MatchExpressions: []metav1.LabelSelectorRequirement{{Key: "a", Operator: "Near"}}}},
	}})
	c.create("leaf", "x", "")
	c.create("whole", "", "x")
	c.await("whole", "leaf")
}
