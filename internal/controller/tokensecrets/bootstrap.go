// Package tokensecrets deletes Secrets whose token is no longer valid: the Secrets of bootstrap tokens that have expired, and the
// Secrets of service accounts that do not exist any more.
//
// No decision depends on it: an expired bootstrap token is refused from the second at which it expires, and a Secret
// holds no token of an account. Any number of replicas may run it. The package never reads the secret of a token.
package tokensecrets

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"
	corev1client "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/utils/clock"

	"lanyard.dev/internal/bootstraptoken"
	"lanyard.dev/internal/controller"
)

// BootstrapCleaner deletes the Secrets of bootstrap tokens that have expired. It listens to the feed of secrets.
type BootstrapCleaner struct {
	secrets corev1client.SecretInterface
	clock   clock.PassiveClock
	queue   *controller.Queue[string]
}

// NewBootstrapCleaner returns a controller that writes through the client of bootstrap.TokenCleaner.
func NewBootstrapCleaner(client kubernetes.Interface, c clock.WithTicker) *BootstrapCleaner {
	return &BootstrapCleaner{
		secrets: client.CoreV1().Secrets(bootstraptoken.Namespace), clock: c,
		queue: controller.NewQueue[string]("remove expired bootstrap token", 50*time.Millisecond, time.Minute, c),
	}
}

// Set implements mirror.Listener.
func (c *BootstrapCleaner) Set(obj runtime.Object) {
	if secret, ok := obj.(*corev1.Secret); ok {
		if _, err := bootstraptoken.FromSecret(secret); err == nil {
			c.queue.Add(secret.Name)
		}
	}
}

// Delete implements mirror.Listener.
func (c *BootstrapCleaner) Delete(runtime.Object) {}

// Run deletes Secrets as their tokens expire, until ctx ends.
func (c *BootstrapCleaner) Run(ctx context.Context) { c.queue.Run(ctx, c.check) }

// check deletes the Secret if its token has expired, and otherwise queues it for the time at which the token expires.
func (c *BootstrapCleaner) check(ctx context.Context, name string) error {
	secret, err := c.secrets.Get(ctx, name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return err
	}
	entry, err := bootstraptoken.FromSecret(secret)
	if err != nil || entry.Expires.IsZero() {
		return nil
	}
	if now := c.clock.Now(); !entry.Expired(now) {
		c.queue.AddAfter(name, entry.Expires.Sub(now))
		return nil
	}
	// The token may be prolonged, or replaced by another of its name, at this moment.
	err = c.secrets.Delete(ctx, name, controller.IfUnchanged(secret))
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("remove secret %s/%s: %w", bootstraptoken.Namespace, name, err)
	}
	return nil
}
