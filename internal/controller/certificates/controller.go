package certificates

import (
	"context"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/apiserver/pkg/registry/rest"
	"k8s.io/client-go/util/workqueue"
	"k8s.io/klog/v2"
	"k8s.io/utils/clock"

	"lanyard.dev/internal/controller"
	"lanyard.dev/internal/pki"
)

// Requests is the store of requests.
type Requests interface {
	rest.Getter
	rest.Lister
	rest.GracefulDeleter
}

// CA returns the CA that now signs for a signer.
type CA func(signerName string) (*pki.Signer, error)

// Nodes tells which certificates of nodes count. *nodeaccess.Evictions does.
type Nodes interface {
	// Earliest is the earliest NotBefore with which a certificate of the node counts; zero if any does.
	Earliest(node string) (time.Time, error)
	// AdmitsUser returns nodeaccess.ErrEvicted if a request was made with a certificate that does not count.
	AdmitsUser(user string, groups, notBefore []string) error
}

// Controller signs and removes requests.
type Controller struct {
	requests Requests
	status   rest.Updater
	ca       CA
	nodes    Nodes
	longest  time.Duration
	clock    clock.WithTicker
	queue    workqueue.TypedRateLimitingInterface[string]
}

// New returns a controller. status is the subresource of requests; ca may be nil: then nothing is signed. longest bounds
// the life of certificates, 0 means DefaultDuration.
func New(requests Requests, status rest.Updater, ca CA, nodes Nodes, longest time.Duration, c clock.WithTicker) *Controller {
	if longest == 0 {
		longest = DefaultDuration
	}
	return &Controller{
		requests: requests, status: status, ca: ca, nodes: nodes, longest: longest, clock: c,
		queue: workqueue.NewTypedRateLimitingQueue(workqueue.NewTypedItemExponentialFailureRateLimiter[string](50*time.Millisecond, time.Minute)),
	}
}

// Set implements mirror.Listener on the feed of requests.
func (c *Controller) Set(obj runtime.Object) {
	if r, ok := obj.(*certificatesv1.CertificateSigningRequest); ok && c.due(r) {
		c.queue.Add(r.Name)
	}
}

// Delete implements mirror.Listener.
func (c *Controller) Delete(runtime.Object) {}

// Run signs and removes requests until ctx ends.
func (c *Controller) Run(ctx context.Context) {
	ctx = request.WithNamespace(ctx, metav1.NamespaceNone)
	go c.cleanRegularly(ctx)
	controller.Work(ctx, c.queue, "sign certificate request", c.sign)
}

func (c *Controller) cleanRegularly(ctx context.Context) {
	tick := c.clock.NewTicker(cleanEvery)
	defer tick.Stop()
	for {
		if err := c.clean(ctx); err != nil && ctx.Err() == nil {
			klog.ErrorS(err, "Could not look for old certificate signing requests; trying again later")
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C():
		}
	}
}
