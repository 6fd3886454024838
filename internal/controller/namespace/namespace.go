// Package namespace ends namespaces: it removes all that a terminating namespace holds, then lets the namespace go.
//
// What has a finalizer or a grace period of its own is waited for; the namespace's conditions say what is left.
package namespace

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sort"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/apis/meta/internalversion"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/apiserver/pkg/registry/rest"
	"k8s.io/client-go/util/workqueue"

	"lanyard.dev/internal/controller"
)

// Content is the store of one namespaced resource.
type Content interface {
	rest.Lister
	rest.CollectionDeleter
}

// Controller ends namespaces.
type Controller struct {
	namespaces       rest.Getter
	finalize, status rest.Updater
	contents         map[schema.GroupResource]Content
	queue            workqueue.TypedRateLimitingInterface[string]
}

// New returns a controller that empties the given resources. finalize and status are the namespace's subresources.
func New(namespaces rest.Getter, finalize, status rest.Updater, contents map[schema.GroupResource]Content) *Controller {
	return &Controller{
		namespaces: namespaces, finalize: finalize, status: status, contents: contents,
		queue: workqueue.NewTypedRateLimitingQueue(workqueue.NewTypedItemExponentialFailureRateLimiter[string](50*time.Millisecond, 10*time.Second)),
	}
}

// Set implements mirror.Listener on the feed of namespaces.
func (c *Controller) Set(obj runtime.Object) {
	if ns, ok := obj.(*corev1.Namespace); ok && ns.DeletionTimestamp != nil {
		c.queue.Add(ns.Name)
	}
}

// Delete implements mirror.Listener.
func (c *Controller) Delete(runtime.Object) {}

// Run ends namespaces until ctx ends.
func (c *Controller) Run(ctx context.Context) {
	ctx = request.WithNamespace(ctx, metav1.NamespaceNone)
	controller.Work(ctx, c.queue, "end namespace", c.end)
}

// errRemaining says that a namespace still holds something.
var errRemaining = fmt.Errorf("content remains: %w", controller.ErrNotYet)

func (c *Controller) end(ctx context.Context, name string) error {
	found, err := c.namespaces.Get(ctx, name, &metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return err
	}
	ns := found.(*corev1.Namespace)
	if ns.DeletionTimestamp == nil || len(ns.Spec.Finalizers) == 0 {
		return nil
	}
	left, err := c.empty(request.WithNamespace(ctx, name))
	if err != nil {
		return errors.Join(err, c.report(ctx, ns, left, err))
	}
	if len(left) == 0 {
		return c.release(ctx, name)
	}
	if err := c.report(ctx, ns, left, nil); err != nil {
		return err
	}
	return errRemaining
}

// empty asks for the removal of everything and says what is still there, as "2 pods". Pods go first, as in Kubernetes: to
// end in order they need the account, secrets and config maps they run with.
func (c *Controller) empty(ctx context.Context) (left []string, err error) {
	pods := corev1.Resource("pods")
	if content, ok := c.contents[pods]; ok {
		if n, err := remove(ctx, pods, content); err != nil || n > 0 {
			return count(nil, n, pods), err
		}
	}
	for resource, content := range c.contents {
		n, failed := remove(ctx, resource, content)
		err = errors.Join(err, failed)
		left = count(left, n, resource)
	}
	sort.Strings(left)
	return left, err
}

// remove asks for the removal of one resource's objects and returns how many are still there.
func remove(ctx context.Context, resource schema.GroupResource, content Content) (int, error) {
	var err error
	if _, failed := content.DeleteCollection(ctx, rest.ValidateAllObjectFunc, &metav1.DeleteOptions{}, &internalversion.ListOptions{}); failed != nil {
		err = fmt.Errorf("remove %s: %w", resource, failed)
	}
	list, failed := content.List(ctx, &internalversion.ListOptions{})
	if failed != nil {
		return 0, errors.Join(err, fmt.Errorf("list %s: %w", resource, failed))
	}
	return meta.LenList(list), err
}

func count(left []string, n int, resource schema.GroupResource) []string {
	if n == 0 {
		return left
	}
	return append(left, fmt.Sprintf("%d %s", n, resource))
}

// report writes what holds the namespace up into its conditions. Nothing is written when they say so already.
func (c *Controller) report(ctx context.Context, ns *corev1.Namespace, left []string, failure error) error {
	conditions := []corev1.NamespaceCondition{
		condition(corev1.NamespaceDeletionContentFailure, failure != nil, "ContentDeletionFailed", "ContentDeleted", failureText(failure)),
		condition(corev1.NamespaceContentRemaining, len(left) > 0, "SomeResourcesRemain", "ContentRemoved", remainder(left)),
	}
	set := controller.Change(func(ns *corev1.Namespace) { ns.Status.Conditions = merge(ns.Status.Conditions, conditions) })
	_, _, err := c.status.Update(ctx, ns.Name, set,
		rest.ValidateAllObjectFunc, rest.ValidateAllObjectUpdateFunc, false, &metav1.UpdateOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}

func remainder(left []string) string {
	if len(left) == 0 {
		return "All content successfully removed"
	}
	return "Some resources are remaining: " + strings.Join(left, ", ")
}

func failureText(err error) string {
	if err == nil {
		return "All content successfully deleted, may be waiting on finalization"
	}
	return err.Error()
}

func condition(kind corev1.NamespaceConditionType, holds bool, reason, otherwise, message string) corev1.NamespaceCondition {
	status := corev1.ConditionFalse
	if holds {
		status = corev1.ConditionTrue
	} else {
		reason = otherwise
	}
	return corev1.NamespaceCondition{Type: kind, Status: status, Reason: reason, Message: message, LastTransitionTime: metav1.Now()}
}

// merge replaces conditions by type; one that says the same keeps its time.
func merge(old, now []corev1.NamespaceCondition) []corev1.NamespaceCondition {
	out := append([]corev1.NamespaceCondition(nil), old...)
	for _, n := range now {
		at := -1
		for i := range out {
			if out[i].Type == n.Type {
				at = i
			}
		}
		if at < 0 {
			out = append(out, n)
			continue
		}
		if out[at].Status == n.Status {
			n.LastTransitionTime = out[at].LastTransitionTime
		}
		out[at] = n
	}
	return out
}

// release takes the finalizer off, upon which storage drops the namespace.
func (c *Controller) release(ctx context.Context, name string) error {
	drop := controller.Change(func(ns *corev1.Namespace) {
		isOurs := func(f corev1.FinalizerName) bool { return f == corev1.FinalizerKubernetes }
		ns.Spec.Finalizers = slices.DeleteFunc(ns.Spec.Finalizers, isOurs)
	})
	_, _, err := c.finalize.Update(ctx, name, drop,
		rest.ValidateAllObjectFunc, rest.ValidateAllObjectUpdateFunc, false, &metav1.UpdateOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}
