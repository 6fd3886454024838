// Package aggregation keeps the rules of aggregated ClusterRoles true: those of the roles that their selectors match.
//
// It is told of each change of a ClusterRole before the writer learns that it is done, and writes the aggregated roles
// soon after, in a loop of its own: between a write and its effect on other roles lie milliseconds, and longer where
// storage fails. It knows stores, not who holds a role.
package aggregation

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/apiserver/pkg/registry/rest"
	"k8s.io/client-go/util/workqueue"
	"k8s.io/klog/v2"

	"lanyard.dev/internal/controller"
	"lanyard.dev/internal/rbac/objects"
)

// Store is the part of the store of cluster roles that is used.
type Store interface {
	rest.Getter
	rest.Updater
}

// Controller writes the rules of aggregated cluster roles.
type Controller struct {
	roles Store
	// queue holds at most one item, all: a change of one role may show in any other.
	queue workqueue.TypedRateLimitingInterface[string]

	mu    sync.Mutex
	known map[string]known
}

const all = "all aggregated cluster roles"

// known is what is remembered of a role.
type known struct {
	labels     labels.Set
	aggregated bool
	// selectors are nil where they cannot be read.
	selectors []labels.Selector
}

// New returns a controller that has to be told of every cluster role.
func New(roles Store) *Controller {
	return &Controller{
		roles: roles, known: map[string]known{},
		queue: workqueue.NewTypedRateLimitingQueue(workqueue.NewTypedItemExponentialFailureRateLimiter[string](20*time.Millisecond, time.Minute)),
	}
}

// Set implements mirror.Listener on the feed of cluster roles.
func (c *Controller) Set(obj runtime.Object) {
	role, ok := obj.(*rbacv1.ClusterRole)
	if !ok {
		return
	}
	now := known{labels: maps.Clone(role.Labels), aggregated: role.AggregationRule != nil}
	selectors, err := objects.Selectors(role.AggregationRule)
	if err != nil {
		klog.ErrorS(err, "Aggregated cluster role has a malformed selector; its rules stay as they are", "clusterRole", role.Name)
	}
	now.selectors = selectors
	c.replace(role.Name, &now)
}

// Delete implements mirror.Listener.
func (c *Controller) Delete(obj runtime.Object) {
	if m, err := meta.Accessor(obj); err == nil {
		c.replace(m.GetName(), nil)
	}
}

// replace notes what a role is now, nil for gone, and asks for work if any aggregated role may show the difference.
func (c *Controller) replace(name string, now *known) {
	c.mu.Lock()
	defer c.mu.Unlock()
	before, existed := c.known[name]
	delete(c.known, name)
	if now != nil {
		c.known[name] = *now
	}
	if existed && (before.aggregated || c.selected(before.labels)) || now != nil && (now.aggregated || c.selected(now.labels)) {
		c.queue.Add(all)
	}
}

// selected tells whether any role aggregates one with these labels.
func (c *Controller) selected(set labels.Set) bool {
	for _, role := range c.known {
		for _, selector := range role.selectors {
			if selector.Matches(set) {
				return true
			}
		}
	}
	return false
}

// Run writes aggregated roles until ctx ends.
func (c *Controller) Run(ctx context.Context) {
	ctx = request.WithNamespace(ctx, metav1.NamespaceNone)
	controller.Work(ctx, c.queue, "aggregate cluster roles", func(ctx context.Context, _ string) error { return c.aggregate(ctx) })
}

// aggregate brings every aggregated role up to date. One that fails does not hold up the others.
func (c *Controller) aggregate(ctx context.Context) error {
	read := reader{controller: c, ctx: ctx, roles: map[string]*rbacv1.ClusterRole{}}
	var failed error
	for _, name := range c.names(func(k known) bool { return k.selectors != nil }) {
		if err := c.update(ctx, &read, name); err != nil {
			failed = errors.Join(failed, fmt.Errorf("aggregate cluster role %s: %w", name, err))
		}
	}
	return failed
}

func (c *Controller) names(which func(known) bool) []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var names []string
	for name, k := range c.known {
		if which(k) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

func (c *Controller) update(ctx context.Context, read *reader, name string) error {
	role, err := read.role(name)
	if err != nil || role == nil || role.AggregationRule == nil {
		return err
	}
	rules, err := objects.AggregatedRules(role, read.list)
	if err != nil || objects.EqualRules(rules, role.Rules) {
		return err
	}
	set := controller.Change(func(stored *rbacv1.ClusterRole) {
		// Someone who takes the aggregation away meanwhile means the rules to stay.
		if stored.AggregationRule != nil {
			stored.Rules = (&rbacv1.ClusterRole{Rules: rules}).DeepCopy().Rules
		}
	})
	_, _, err = c.roles.Update(ctx, name, set, rest.ValidateAllObjectFunc, rest.ValidateAllObjectUpdateFunc, false, &metav1.UpdateOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}

// reader reads each role once. What is remembered says only where to look, for another replica may be ahead.
type reader struct {
	controller *Controller
	ctx        context.Context
	roles      map[string]*rbacv1.ClusterRole // nil for those that are not there
}

func (r *reader) role(name string) (*rbacv1.ClusterRole, error) {
	if role, ok := r.roles[name]; ok {
		return role, nil
	}
	found, err := r.controller.roles.Get(r.ctx, name, &metav1.GetOptions{})
	if err != nil && !apierrors.IsNotFound(err) {
		return nil, fmt.Errorf("read cluster role %s: %w", name, err)
	}
	role, _ := found.(*rbacv1.ClusterRole)
	r.roles[name] = role
	return role, nil
}

// list implements objects.ListRoles.
func (r *reader) list(selector labels.Selector) ([]*rbacv1.ClusterRole, error) {
	var matched []*rbacv1.ClusterRole
	for _, name := range r.controller.names(func(k known) bool { return selector.Matches(k.labels) }) {
		role, err := r.role(name)
		if err != nil {
			return nil, err
		}
		if role != nil && selector.Matches(labels.Set(role.Labels)) {
			matched = append(matched, role)
		}
	}
	return matched, nil
}
