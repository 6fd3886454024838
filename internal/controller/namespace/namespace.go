// Package namespace deletes the content of namespaces that are being deleted, and then the namespaces.
//
// Objects with finalizers or a grace period delay the deletion. The conditions of the namespace report what is left.
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
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/kubernetes"
	corev1client "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/metadata"
	"k8s.io/utils/clock"
	"k8s.io/utils/ptr"

	"lanyard.dev/internal/controller"
)

// Controller deletes namespaces. It listens to the feed of namespaces.
type Controller struct {
	namespaces corev1client.NamespaceInterface
	contents   metadata.Interface
	resources  []schema.GroupVersionResource
	queue      *controller.Queue[string]
}

// New returns a controller that deletes objects of the given resources. client and contents are clients of
// bootstrap.NamespaceController.
func New(client kubernetes.Interface, contents metadata.Interface, resources []schema.GroupVersionResource) *Controller {
	return &Controller{
		namespaces: client.CoreV1().Namespaces(), contents: contents, resources: resources,
		queue: controller.NewQueue[string]("end namespace", 50*time.Millisecond, 10*time.Second, clock.RealClock{}),
	}
}

// Set implements mirror.Listener.
func (c *Controller) Set(obj runtime.Object) {
	if ns, ok := obj.(*corev1.Namespace); ok && ns.DeletionTimestamp != nil {
		c.queue.Add(ns.Name)
	}
}

// Delete implements mirror.Listener.
func (c *Controller) Delete(runtime.Object) {}

// Run deletes namespaces until ctx ends.
func (c *Controller) Run(ctx context.Context) { c.queue.Run(ctx, c.finish) }

// errRemaining means that a namespace still has content.
var errRemaining = fmt.Errorf("content remains: %w", controller.ErrNotYet)

func (c *Controller) finish(ctx context.Context, name string) error {
	ns, err := c.namespaces.Get(ctx, name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return err
	}
	if ns.DeletionTimestamp == nil || len(ns.Spec.Finalizers) == 0 {
		return nil
	}
	left, err := c.deleteContent(ctx, name)
	if err != nil {
		return errors.Join(err, c.report(ctx, name, left, err))
	}
	if len(left) == 0 {
		return c.finalize(ctx, name)
	}
	if err := c.report(ctx, name, left, nil); err != nil {
		return err
	}
	return errRemaining
}

// deleteContent requests the deletion of all objects and returns what is left, as in "2 pods". As in Kubernetes, pods
// are deleted first: to end in order, they need their service account, secrets and config maps.
func (c *Controller) deleteContent(ctx context.Context, namespace string) (left []string, err error) {
	pods := corev1.SchemeGroupVersion.WithResource("pods")
	if slices.Contains(c.resources, pods) {
		if n, err := c.deleteAll(ctx, namespace, pods); err != nil || n > 0 {
			return appendCount(nil, n, pods), err
		}
	}
	for _, resource := range c.resources {
		n, failed := c.deleteAll(ctx, namespace, resource)
		err = errors.Join(err, failed)
		left = appendCount(left, n, resource)
	}
	sort.Strings(left)
	return left, err
}

// deleteAll requests the deletion of the objects of one resource and returns how many are left.
func (c *Controller) deleteAll(ctx context.Context, namespace string, resource schema.GroupVersionResource) (int, error) {
	objects := c.contents.Resource(resource).Namespace(namespace)
	err := objects.DeleteCollection(ctx, metav1.DeleteOptions{}, metav1.ListOptions{})
	if err != nil {
		err = fmt.Errorf("remove %s: %w", resource.GroupResource(), err)
	}
	list, failed := objects.List(ctx, metav1.ListOptions{Limit: 1})
	if failed != nil {
		return 0, errors.Join(err, fmt.Errorf("list %s: %w", resource.GroupResource(), failed))
	}
	return len(list.Items) + int(ptr.Deref(list.RemainingItemCount, 0)), err
}

func appendCount(left []string, n int, resource schema.GroupVersionResource) []string {
	if n == 0 {
		return left
	}
	return append(left, fmt.Sprintf("%d %s", n, resource.GroupResource()))
}

// report writes what is left into the conditions of the namespace, unless they already report it.
func (c *Controller) report(ctx context.Context, name string, left []string, failure error) error {
	conditions := []corev1.NamespaceCondition{
		condition(corev1.NamespaceDeletionContentFailure, failure != nil, "ContentDeletionFailed", "ContentDeleted", failureText(failure)),
		condition(corev1.NamespaceContentRemaining, len(left) > 0, "SomeResourcesRemain", "ContentRemoved", remainder(left)),
	}
	_, err := controller.Change(ctx, name, c.namespaces.Get, c.namespaces.UpdateStatus, func(ns *corev1.Namespace) bool {
		merged := merge(ns.Status.Conditions, conditions)
		if slices.Equal(merged, ns.Status.Conditions) {
			return false
		}
		ns.Status.Conditions = merged
		return true
	})
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

// merge replaces conditions by type. A condition whose status stays the same keeps its time.
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

// finalize removes the finalizer of the namespace, upon which storage deletes it.
func (c *Controller) finalize(ctx context.Context, name string) error {
	_, err := controller.Change(ctx, name, c.namespaces.Get, c.namespaces.Finalize, func(ns *corev1.Namespace) bool {
		before := len(ns.Spec.Finalizers)
		ns.Spec.Finalizers = slices.DeleteFunc(ns.Spec.Finalizers, func(f corev1.FinalizerName) bool { return f == corev1.FinalizerKubernetes })
		return len(ns.Spec.Finalizers) < before
	})
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}
