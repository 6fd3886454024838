package scheduler

import (
	"context"
	"fmt"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
	"k8s.io/klog/v2"

	"lanyard.dev/internal/controller"
	"lanyard.dev/internal/rbac/bootstrap"
)

// durations are the durations of an election. A leader that does not renew its Lease stops when renew has passed since the last
// renewal, and another replica takes over when lease has passed since it saw that renewal. In between, bindings under way have
// time to end. All are measured by the monotonic clocks of the replicas; times that different replicas wrote are not compared.
type durations struct{ lease, renew, retry time.Duration }

var usualDurations = durations{lease: 15 * time.Second, renew: 10 * time.Second, retry: 2 * time.Second}

// bind bounds the time of a binding.
func (d durations) bind() time.Duration { return d.lease - d.renew }

// election elects the replica that assigns host ports. It takes part once this replica has a pod with host ports to
// bind: without such pods, no replica writes the Lease.
type election struct {
	client    kubernetes.Interface
	identity  string
	durations durations
	elected   func() // called when this replica becomes the leader

	once sync.Once
	mu   sync.Mutex
	term context.Context // ends with the leadership of this replica; nil before it was ever elected
}

// join takes part in the election until ctx ends.
func (e *election) join(ctx context.Context) {
	e.once.Do(func() { go e.run(ctx) })
}

func (e *election) run(ctx context.Context) {
	elector, err := leaderelection.NewLeaderElector(leaderelection.LeaderElectionConfig{
		Lock: &resourcelock.LeaseLock{
			LeaseMeta:  metav1.ObjectMeta{Namespace: metav1.NamespaceSystem, Name: bootstrap.SchedulerLease},
			Client:     e.client.CoordinationV1(),
			LockConfig: resourcelock.ResourceLockConfig{Identity: e.identity},
		},
		Name: bootstrap.SchedulerLease, LeaseDuration: e.durations.lease, RenewDeadline: e.durations.renew, RetryPeriod: e.durations.retry,
		Callbacks: leaderelection.LeaderCallbacks{OnStartedLeading: e.lead, OnStoppedLeading: func() {}},
	})
	if err != nil {
		klog.ErrorS(err, "Could not take part in the election of the scheduler; pods with host ports stay pending")
		return
	}
	for ctx.Err() == nil { // Run returns whenever the leadership ends
		elector.Run(ctx)
	}
}

func (e *election) lead(term context.Context) {
	e.mu.Lock()
	e.term = term
	e.mu.Unlock()
	e.elected()
}

// claim checks that the host ports are free on the node. They stay free until the returned context ends, since only the
// leader assigns host ports. The pods are read from the API: the feeds may be behind the previous leader.
func (e *election) claim(ctx context.Context, node string, wanted []port) (context.Context, context.CancelFunc, error) {
	e.mu.Lock()
	term := e.term
	e.mu.Unlock()
	if term == nil || term.Err() != nil {
		return nil, nil, fmt.Errorf("another replica assigns host ports: %w", controller.ErrNotYet)
	}
	ctx, cancel := context.WithTimeout(ctx, e.durations.bind())
	unlink := context.AfterFunc(term, cancel)
	release := func() { unlink(); cancel() }
	if err := e.checkPorts(ctx, node, wanted); err != nil {
		release()
		return nil, nil, err
	}
	return ctx, release, nil
}

func (e *election) checkPorts(ctx context.Context, node string, wanted []port) error {
	onNode := fields.OneTermEqualSelector("spec.nodeName", node).String()
	list, err := e.client.CoreV1().Pods(metav1.NamespaceAll).List(ctx, metav1.ListOptions{FieldSelector: onNode})
	if err != nil {
		return fmt.Errorf("list the pods of node %s: %w", node, err)
	}
	used := ports{}
	for i := range list.Items {
		if pod := &list.Items[i]; !controller.Finished(pod) {
			used.add(portsOf(&pod.Spec))
		}
	}
	if !used.free(wanted) {
		return fmt.Errorf("another replica has assigned the host ports on node %s: %w", node, controller.ErrNotYet)
	}
	return nil
}
