package issuance

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/storage"
	"k8s.io/klog/v2"
	"k8s.io/utils/clock"

	"lanyard.dev/internal/ledger"
)

// Feed delivers the batches of all replicas to the journal. *mirror.Feed implements it.
type Feed interface {
	// Fresh returns an error if other replicas may have written batches that were not delivered for too long.
	Fresh() error
	// CatchUp returns once everything that was written before the call has been delivered.
	CatchUp(ctx context.Context) error
	// ProofAge returns how long ago it was last proved that everything had been delivered.
	ProofAge() time.Duration
	// Reached returns the revision up to which everything has been delivered.
	Reached() uint64
}

// Config configures a Journal. All fields but AcceptUnrecorded are required.
type Config struct {
	// Storage is where batches are written. It delivers what is written to the journal before the write returns.
	Storage storage.Interface
	Feed    Feed
	Memory  *ledger.Memory
	Clock   clock.WithTicker
	// AcceptUnrecorded makes Check accept tokens that have no record.
	AcceptUnrecorded bool
}

// Journal writes the ledger to etcd and keeps its memory up to date. It is a mirror.Listener, and safe for concurrent use.
type Journal struct {
	Config
	// id is in the names of this process's batches, with their number.
	id      string
	written uint64
	revoked func() // see OnRevocation; or nil
	// own is the batch that is being written.
	own atomic.Pointer[ownBatch]

	mu      sync.Mutex
	waiting []*group // in the order in which they are written
	ended   bool     // nothing is written any more
	wake    chan struct{}
	// enough receives a value when the first waiting group gets as many records as gather waits for.
	awaited int
	enough  chan struct{}

	synced  bool
	expired []string // the names of batches that are to be deleted

	uses uses
}

// ownBatch is a batch of this process, and the name of its object.
type ownBatch struct {
	name  string
	batch *ledger.Batch
}

// New returns a journal. Run must be called for it to write anything.
func New(c Config) *Journal {
	return &Journal{Config: c, id: uuid.NewString(), wake: make(chan struct{}, 1), enough: make(chan struct{}, 1)}
}

// OnRevocation makes the journal call f each time when credentials were revoked, by any replica, and the memory knows of it. f must
// not wait. OnRevocation must be called before the feed of the batches runs.
func (j *Journal) OnRevocation(f func()) { j.revoked = f }

// Set implements mirror.Listener. It adds a batch to the memory.
func (j *Journal) Set(obj runtime.Object) {
	o, ok := obj.(*Object)
	if !ok {
		return
	}
	revision, err := storage.APIObjectVersioner{}.ObjectResourceVersion(o)
	if err != nil {
		return
	}
	if own := j.own.Load(); own != nil && own.name == o.Name {
		j.apply(own.batch, revision)
		return
	}
	batch, err := ledger.Unmarshal(o.Content)
	if err != nil {
		// The tokens in it are refused. Nothing else depends on it.
		klog.ErrorS(err, "A batch of issued credentials cannot be read; its tokens are refused", "key", Prefix+"/"+o.Name)
		return
	}
	j.noteExpired(o, batch)
	j.apply(batch, revision)
}

func (j *Journal) apply(b *ledger.Batch, revision uint64) {
	j.Memory.Apply(b, revision)
	if len(b.Revocations) > 0 && j.revoked != nil {
		j.revoked()
	}
}

// Delete implements mirror.Listener. A batch is deleted when nothing in it is needed any more.
func (*Journal) Delete(runtime.Object) {}

// RecordToken returns nil once the record of a token is durable. After an error, the record may exist or not, so the token must
// not be used.
func (j *Journal) RecordToken(ctx context.Context, t ledger.Token) error {
	return j.add(ctx, measureToken(&t), func(b *ledger.Batch) { b.Tokens = append(b.Tokens, t) })
}

// RecordCertificate is RecordToken for a certificate.
func (j *Journal) RecordCertificate(ctx context.Context, c ledger.Certificate) error {
	return j.add(ctx, measureCertificate(&c), func(b *ledger.Batch) { b.Certificates = append(b.Certificates, c) })
}

// Revoke returns nil once all the revocations are durable and in effect in this process. After an error, any of them may be.
func (j *Journal) Revoke(ctx context.Context, all []ledger.Revocation) error {
	for len(all) > 0 {
		n := min(len(all), maxRecords)
		part := all[:n]
		if err := j.add(ctx, measureRevocations(part), func(b *ledger.Batch) { b.Revocations = append(b.Revocations, part...) }); err != nil {
			return err
		}
		all = all[n:]
	}
	return nil
}

// errEnded is the error of a journal that writes nothing any more.
var errEnded = errors.New("the server is ending")

// Synced states that the feed has delivered everything that was stored at the start. It must be called once. Until ctx ends, it
// deletes in the background what is not needed any more.
func (j *Journal) Synced(ctx context.Context) {
	j.Memory.Synced(j.Feed.Reached())
	go j.deleteExpired(ctx)
}

// Run writes batches, and removes what has expired from the memory, until ctx ends. It must be called once.
func (j *Journal) Run(ctx context.Context) {
	go j.Memory.Run(ctx, j.Clock)
	go j.writeUsesRegularly(ctx)
	defer j.end()
	for {
		select {
		case <-ctx.Done():
			return
		case <-j.wake:
		}
		for g := j.take(); g != nil; g = j.take() {
			began := j.Clock.Now()
			err := j.commit(ctx, &g.batch)
			callers, took := g.records+j.joined(), j.Clock.Since(began)
			g.finish(err)
			j.gather(ctx, callers, min(2*took, maxGather))
		}
	}
}

// end fails what waits, and all later calls.
func (j *Journal) end() {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.ended = true
	for _, g := range j.waiting {
		g.finish(errEnded)
	}
	j.waiting = nil
}

// leaseOf returns for how long a batch is stored: until its latest expiry, rounded up so that successive batches share leases.
func leaseOf(b *ledger.Batch, now time.Time) time.Duration {
	left := b.Expires().Sub(now) + leaseMargin
	for _, class := range leaseClasses {
		if left <= class {
			return class
		}
	}
	return left.Truncate(leaseStep) + leaseStep
}

// The times for which batches are stored. The library gives a batch the lease of the batch before it, if the times are the same
// and the lease is young enough. etcd keeps a lease for longer after a change of its leader or a restart, never for less.
var leaseClasses = []time.Duration{15 * time.Minute, 75 * time.Minute, 6 * time.Hour, 26 * time.Hour, 8 * 24 * time.Hour, 32 * 24 * time.Hour}

const (
	leaseStep = 32 * 24 * time.Hour
	// leaseMargin is how long a batch is kept after its latest expiry. It allows for replicas whose clocks differ.
	leaseMargin = 2 * time.Minute
)
