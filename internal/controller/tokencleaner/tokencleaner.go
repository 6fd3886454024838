// Package tokencleaner removes the Secrets of bootstrap tokens that have expired.
//
// Nothing waits for it: an expired token is refused from the second on at which it expires. The package knows stores,
// not HTTP, and never looks at a token's secret.
package tokencleaner

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/apiserver/pkg/registry/rest"
	"k8s.io/client-go/util/workqueue"
	"k8s.io/utils/clock"

	"lanyard.dev/internal/bootstraptoken"
	"lanyard.dev/internal/controller"
)

// Store is the part of the secrets' store that is used.
type Store interface {
	rest.Getter
	rest.GracefulDeleter
}

// Controller removes expired tokens. It listens to the feed of secrets.
type Controller struct {
	secrets Store
	clock   clock.PassiveClock
	queue   workqueue.TypedRateLimitingInterface[string]
}

// New returns a controller over the store of secrets.
func New(secrets Store, c clock.WithTicker) *Controller {
	limiter := workqueue.NewTypedItemExponentialFailureRateLimiter[string](50*time.Millisecond, time.Minute)
	return &Controller{
		secrets: secrets, clock: c,
		queue: workqueue.NewTypedRateLimitingQueueWithConfig(limiter, workqueue.TypedRateLimitingQueueConfig[string]{Clock: c}),
	}
}

// Set implements mirror.Listener.
func (c *Controller) Set(obj runtime.Object) {
	if secret, ok := obj.(*corev1.Secret); ok {
		if _, err := bootstraptoken.FromSecret(secret); err == nil {
			c.queue.Add(secret.Name)
		}
	}
}

// Delete implements mirror.Listener.
func (c *Controller) Delete(runtime.Object) {}

// Run removes tokens as they expire, until ctx ends.
func (c *Controller) Run(ctx context.Context) {
	ctx = request.WithNamespace(ctx, bootstraptoken.Namespace)
	controller.Work(ctx, c.queue, "remove expired bootstrap token", c.look)
}

// look removes the token if it has expired, and else comes back when it will have.
func (c *Controller) look(ctx context.Context, name string) error {
	found, err := c.secrets.Get(ctx, name, &metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return err
	}
	secret := found.(*corev1.Secret)
	entry, err := bootstraptoken.FromSecret(secret)
	if err != nil || entry.Expires.IsZero() {
		return nil
	}
	if now := c.clock.Now(); !entry.Expired(now) {
		c.queue.AddAfter(name, entry.Expires.Sub(now))
		return nil
	}
	return c.remove(ctx, secret)
}

// remove takes away what has expired and nothing newer: someone may prolong the token, or make another of its name.
func (c *Controller) remove(ctx context.Context, secret *corev1.Secret) error {
	only := metav1.Preconditions{UID: &secret.UID, ResourceVersion: &secret.ResourceVersion}
	_, _, err := c.secrets.Delete(ctx, secret.Name, rest.ValidateAllObjectFunc, &metav1.DeleteOptions{Preconditions: &only})
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("remove secret %s/%s: %w", bootstraptoken.Namespace, secret.Name, err)
	}
	return nil
}
