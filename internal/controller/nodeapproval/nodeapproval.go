package nodeapproval

import (
	"context"
	"errors"
	"fmt"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/apiserver/pkg/registry/rest"
	"k8s.io/client-go/util/workqueue"
	"k8s.io/utils/clock"

	"lanyard.dev/internal/controller"
	"lanyard.dev/internal/nodeaccess"
)

// Admits tells whether a request was made with a certificate that counts: nodeaccess.Evictions.AdmitsUser.
type Admits func(user string, groups, notBefore []string) error

// Controller approves requests as they come. It listens to the feed of certificate signing requests.
type Controller struct {
	requests   rest.Getter
	approval   rest.Updater
	authorizer authorizer.UnconditionalAuthorizer
	taken      Taken
	admits     Admits
	clock      clock.PassiveClock
	queue      workqueue.TypedRateLimitingInterface[string]
}

// New returns a controller. requests is the store of certificate signing requests, approval its subresource.
func New(requests rest.Getter, approval rest.Updater, az authorizer.UnconditionalAuthorizer, taken Taken, admits Admits, c clock.WithTicker) *Controller {
	limiter := workqueue.NewTypedItemExponentialFailureRateLimiter[string](200*time.Millisecond, 15*time.Minute)
	return &Controller{
		requests: requests, approval: approval, authorizer: az, taken: taken, admits: admits, clock: c,
		queue: workqueue.NewTypedRateLimitingQueueWithConfig(limiter, workqueue.TypedRateLimitingQueueConfig[string]{Clock: c}),
	}
}

// Set implements mirror.Listener.
func (c *Controller) Set(obj runtime.Object) {
	if csr, ok := obj.(*certificatesv1.CertificateSigningRequest); ok && !decided(csr) {
		c.queue.Add(csr.Name)
	}
}

// Delete implements mirror.Listener.
func (c *Controller) Delete(runtime.Object) {}

// Run approves requests until ctx ends.
func (c *Controller) Run(ctx context.Context) {
	ctx = request.WithNamespace(ctx, metav1.NamespaceNone)
	controller.Work(ctx, c.queue, "approve the certificate request of a node", c.look)
}

func (c *Controller) look(ctx context.Context, name string) error {
	found, err := c.requests.Get(ctx, name, &metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read certificate request %s: %w", name, err)
	}
	csr := found.(*certificatesv1.CertificateSigningRequest)
	err = c.admits(csr.Spec.Username, csr.Spec.Groups, csr.Spec.Extra[nodeaccess.ExtraNotBefore])
	if errors.Is(err, nodeaccess.ErrEvicted) {
		return nil // nobody may approve it any more
	}
	if err != nil {
		return err
	}
	approved, err := Decide(ctx, csr, c.authorizer, c.taken)
	if errors.Is(err, ErrNotAllowed) {
		// Policy may come to allow it later.
		return errors.Join(controller.ErrNotYet, err)
	}
	if err != nil || approved == nil {
		return err
	}
	return c.approve(ctx, csr, approved)
}

// approve adds the condition to the very request that was looked at, unless someone has decided it meanwhile.
func (c *Controller) approve(ctx context.Context, looked *certificatesv1.CertificateSigningRequest, condition *certificatesv1.CertificateSigningRequestCondition) error {
	now := metav1.NewTime(c.clock.Now())
	condition.LastUpdateTime, condition.LastTransitionTime = now, now
	add := controller.Change(func(csr *certificatesv1.CertificateSigningRequest) {
		if csr.UID == looked.UID && !decided(csr) {
			csr.Status.Conditions = append(csr.Status.Conditions, *condition)
		}
	})
	_, _, err := c.approval.Update(ctx, looked.Name, add, rest.ValidateAllObjectFunc, rest.ValidateAllObjectUpdateFunc, false, &metav1.UpdateOptions{})
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("approve certificate request %s: %w", looked.Name, err)
	}
	return nil
}
