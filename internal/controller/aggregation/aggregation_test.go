package aggregation_test

import (
	"context"
	"errors"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/apis/meta/internalversion"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/apiserver/pkg/registry/rest"

	"lanyard.dev/internal/apiserver/registry"
	"lanyard.dev/internal/apiserver/registry/storagetest"
	"lanyard.dev/internal/controller"
	"lanyard.dev/internal/controller/aggregation"
)

// cluster is a real store with a controller that is told of each change, as by a feed.
type cluster struct {
	t       *testing.T
	roles   *registry.Store
	changes chan *rbacv1.ClusterRole

	aggregates *aggregation.Controller
}

func start(t *testing.T, wrap func(aggregation.Store) aggregation.Store) *cluster {
	t.Helper()
	base := storagetest.Start(t)
	roles := base.Store(base, rbacv1.Resource("clusterroles"))
	c := &cluster{t: t, roles: roles, changes: make(chan *rbacv1.ClusterRole, 1000), aggregates: aggregation.New(wrap(roles))}
	w, err := roles.Watch(storagetest.In(t, ""), &internalversion.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		for event := range w.ResultChan() {
			if event.Type == watch.Deleted {
				c.aggregates.Delete(event.Object)
				continue
			}
			c.aggregates.Set(event.Object)
			if role, ok := event.Object.(*rbacv1.ClusterRole); ok {
				c.changes <- role
			}
		}
	}()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); c.aggregates.Run(ctx) }()
	t.Cleanup(func() { w.Stop(); cancel(); <-done })
	return c
}

func plain(s aggregation.Store) aggregation.Store { return s }

// create makes a role with one rule of its own name, the label to, and the rules of those with the label from.
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
	_, _, err := c.roles.Update(storagetest.In(c.t, ""), name, controller.Change(mutate),
		rest.ValidateAllObjectFunc, rest.ValidateAllObjectUpdateFunc, false, &metav1.UpdateOptions{})
	if err != nil {
		c.t.Fatalf("update %s: %v", name, err)
	}
}

// await returns when the role's rules are for these resources.
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
	c := start(t, plain)
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

// TestCirclesEnd has three roles that select each other in a circle: by copying, their rules would go round for ever.
func TestCirclesEnd(t *testing.T) {
	t.Parallel()
	c := start(t, plain)
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
	// A change that the loop has to work through shows that it is done with the circle.
	c.create("probe", "", "w")
	c.await("probe")
	for name, version := range versions {
		if now := c.stored(name).ResourceVersion; now != version {
			t.Errorf("%s was written again: version %s, then %s", name, version, now)
		}
	}
}

// settle waits until the stored role is as wanted, with each change of any role as an occasion to look.
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

// refusing fails its first updates.
type refusing struct {
	aggregation.Store
	left atomic.Int64
}

func (r *refusing) Update(ctx context.Context, name string, info rest.UpdatedObjectInfo, create rest.ValidateObjectFunc,
	update rest.ValidateObjectUpdateFunc, force bool, o *metav1.UpdateOptions,
) (obj runtime.Object, created bool, err error) {
	if r.left.Add(-1) >= 0 {
		return nil, false, errors.New("no storage today")
	}
	return r.Store.Update(ctx, name, info, create, update, force, o)
}

func TestTriesAgain(t *testing.T) {
	t.Parallel()
	c := start(t, func(s aggregation.Store) aggregation.Store {
		r := &refusing{Store: s}
		r.left.Store(3)
		return r
	})
	c.create("a", "x", "")
	c.create("whole", "", "x")
	c.await("whole", "a")
}

// TestMalformedSelectorLeavesTheRest tells of a role that validation would refuse today.
func TestMalformedSelectorLeavesTheRest(t *testing.T) {
	t.Parallel()
	c := start(t, plain)
	c.aggregates.Set(&rbacv1.ClusterRole{ObjectMeta: storagetest.Meta("", "broken"), AggregationRule: &rbacv1.AggregationRule{
		ClusterRoleSelectors: []metav1.LabelSelector{{MatchExpressions: []metav1.LabelSelectorRequirement{{Key: "a", Operator: "Near"}}}},
	}})
	c.create("leaf", "x", "")
	c.create("whole", "", "x")
	c.await("whole", "leaf")
}
