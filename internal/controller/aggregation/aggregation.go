// Package aggregation keeps the rules of aggregated ClusterRoles equal to the rules of the roles that their selectors match.
//
// The feed reports each change of a ClusterRole before the writer learns that it succeeded. The aggregated roles are
// written soon after: in general within milliseconds, and later if storage fails. The package does not know to whom
// roles are bound.
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
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"
	rbacv1client "k8s.io/client-go/kubernetes/typed/rbac/v1"
	"k8s.io/klog/v2"
	"k8s.io/utils/clock"

	"lanyard.dev/internal/controller"
	"lanyard.dev/internal/rbac/objects"
)

// Controller writes the rules of aggregated ClusterRoles. It listens to the feed of ClusterRoles.
type Controller struct {
	roles rbacv1client.ClusterRoleInterface
	// queue holds at most one item, all: a change of one role may affect any other.
	queue *controller.Queue[string]

	mu    sync.Mutex
	known map[string]known
}

const all = "all aggregated cluster roles"

// known is what the controller remembers of a role.
type known struct {
	labels     labels.Set
	aggregated bool
	// selectors are nil if they cannot be read.
	selectors []labels.Selector
}

// New returns a controller that writes through the client of bootstrap.ClusterRoleAggregationController.
func New(client kubernetes.Interface) *Controller {
	return &Controller{
		roles: client.RbacV1().ClusterRoles(), known: map[string]known{},
		queue: controller.NewQueue[string]("aggregate cluster roles", 20*time.Millisecond, time.Minute, clock.RealClock{}),
	}
}

// Set implements mirror.Listener.
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
	if key, ok := controller.KeyOf(obj); ok {
		c.replace(key.Name, nil)
	}
}

// replace records the present state of a role, nil if it is gone, and queues the aggregation if the difference may
// affect an aggregated role.
func (c *Controller) replace(name string, now *known) {
	c.mu.Lock()
	defer c.mu.Unlock()
	before, existed := c.known[name]
	delete(c.known, name)
	if now != nil {
		c.known[name] = *now
	}
	if existed && (before.aggregated || c.isSelected(before.labels)) || now != nil && (now.aggregated || c.isSelected(now.labels)) {
		c.queue.Add(all)
	}
}

// isSelected reports whether any role aggregates roles with these labels.
func (c *Controller) isSelected(set labels.Set) bool {
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
	c.queue.Run(ctx, func(ctx context.Context, _ string) error { return c.aggregate(ctx) })
}

// aggregate updates every aggregated role. The failure of one does not keep the others from being updated.
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
	_, err = controller.Change(ctx, name, c.roles.Get, c.roles.Update, func(stored *rbacv1.ClusterRole) bool {
		// If the aggregation was removed in the meantime, the rules are to stay.
		if stored.AggregationRule == nil {
			return false
		}
		stored.Rules = (&rbacv1.ClusterRole{Rules: rules}).DeepCopy().Rules
		return true
	})
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}

// reader reads each role at most once. What the controller remembers only determines which roles to read, since another replica
// may be ahead.
type reader struct {
	controller *Controller
	ctx        context.Context
	roles      map[string]*rbacv1.ClusterRole // nil for roles that do not exist
}

func (r *reader) role(name string) (*rbacv1.ClusterRole, error) {
	if role, ok := r.roles[name]; ok {
		return role, nil
	}
	role, err := r.controller.roles.Get(r.ctx, name, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		role = nil
	case err != nil:
		return nil, fmt.Errorf("read cluster role %s: %w", name, err)
	}
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
