package issuance

import (
	"context"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/storage"
	"k8s.io/klog/v2"

	"lanyard.dev/internal/ledger"
)

// maxExpired bounds how many batches are deleted at a start. The next start deletes more.
const maxExpired = 100_000

// noteExpired notes a batch that was stored at the start although nothing in it is needed any more. etcd gives a lease its full time
// again when it restarts or has another leader, so batches may outlive their leases by far.
func (j *Journal) noteExpired(o *Object, b *ledger.Batch) {
	if len(b.Uses) > 0 || j.Clock.Now().Before(b.Expires().Add(leaseMargin)) {
		return
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if !j.synced && len(j.expired) < maxExpired {
		j.expired = append(j.expired, o.Name)
	}
}

// deleteExpired deletes the batches that were noted. Other replicas may do the same.
func (j *Journal) deleteExpired(ctx context.Context) {
	j.mu.Lock()
	names := j.expired
	j.synced, j.expired = true, nil
	j.mu.Unlock()
	always := func(context.Context, runtime.Object) error { return nil }
	for _, name := range names {
		err := j.Storage.Delete(ctx, Prefix+"/"+name, &Object{}, nil, always, nil, storage.DeleteOptions{})
		if ctx.Err() != nil {
			return
		}
		if err != nil && !storage.IsNotFound(err) {
			klog.V(1).InfoS("Could not delete an expired batch of issued credentials; the next start deletes it", "err", err)
			return
		}
	}
}
