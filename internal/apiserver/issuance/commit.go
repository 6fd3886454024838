package issuance

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"lanyard.dev/internal/ledger"
)

const (
	// maxRecords and maxBytes bound a batch. maxBytes is well below the 1.5 MiB that etcd takes.
	maxRecords, maxBytes = 1000, 256 << 10
	// maxGroups bounds what waits if etcd is slow.
	maxGroups = 64
	// commitTimeout is how long one write may take. It is longer than it takes to drop an etcd member that hangs and to elect
	// another leader.
	commitTimeout = 10 * time.Second
	// maxGather bounds how long a batch waits for more records; otherwise it waits for twice the time of the last write.
	maxGather = 10 * time.Millisecond
)

// group is a batch that is not written yet, and those who wait for it.
type group struct {
	batch          ledger.Batch
	records, bytes int
	done           chan struct{} // closed when err is set
	err            error
}

func (g *group) finish(err error) {
	g.err = err
	close(g.done)
}

// add puts something into the next batch, and waits until that is written. put is called once, before add returns.
func (j *Journal) add(ctx context.Context, m measure, put func(*ledger.Batch)) error {
	if m.err != nil {
		return m.err
	}
	g, err := j.join(m.bytes, put)
	if err != nil {
		return err
	}
	select {
	case <-g.done:
		return g.err
	case <-ctx.Done():
		return fmt.Errorf("write to the ledger: %w", context.Cause(ctx))
	}
}

// join puts something into the last waiting group, or a new one if that is full.
func (j *Journal) join(size int, put func(*ledger.Batch)) (*group, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.ended {
		return nil, fmt.Errorf("write to the ledger: %w", errEnded)
	}
	var g *group
	if n := len(j.waiting); n > 0 {
		g = j.waiting[n-1]
	}
	if g == nil || g.records > 0 && (g.records >= maxRecords || g.bytes+size > maxBytes) {
		if len(j.waiting) >= maxGroups {
			return nil, fmt.Errorf("write to the ledger: %d batches are waiting for etcd", len(j.waiting))
		}
		g = &group{done: make(chan struct{})}
		j.waiting = append(j.waiting, g)
		select {
		case j.wake <- struct{}{}:
		default:
		}
	}
	put(&g.batch)
	g.records, g.bytes = g.records+1, g.bytes+size
	if g.records == j.awaited {
		select {
		case j.enough <- struct{}{}:
		default:
		}
	}
	return g, nil
}

// joined returns how many records the last waiting group has.
func (j *Journal) joined() int {
	j.mu.Lock()
	defer j.mu.Unlock()
	if n := len(j.waiting); n > 0 {
		return j.waiting[n-1].records
	}
	return 0
}

// gather waits until as many records wait as there were callers at the end of the last write, or until the limit. Without it,
// half of the callers would wait while the batch of the other half is written, and each batch would have half of the records:
// most of the cost of a write does not depend on its size. A lone caller does not wait.
func (j *Journal) gather(ctx context.Context, callers int, limit time.Duration) {
	select {
	case <-j.enough: // for an earlier batch
	default:
	}
	j.mu.Lock()
	j.awaited = min(callers, maxRecords)
	j.mu.Unlock()
	if callers <= 1 || j.joined() >= j.awaited {
		return
	}
	timer := j.Clock.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C():
	case <-j.enough:
	}
}

// take returns the first waiting group, which nothing joins any more, or nil.
func (j *Journal) take() *group {
	j.mu.Lock()
	defer j.mu.Unlock()
	if len(j.waiting) == 0 {
		return nil
	}
	g := j.waiting[0]
	j.waiting[0] = nil
	j.waiting = j.waiting[1:]
	return g
}

// commit writes a batch. When it returns nil, the batch is durable and in memory. After an error it may be or become so.
func (j *Journal) commit(ctx context.Context, b *ledger.Batch) error {
	ctx, cancel := context.WithTimeout(ctx, commitTimeout)
	defer cancel()
	content, err := b.Marshal()
	if err != nil {
		return fmt.Errorf("write to the ledger: %w", err)
	}
	j.written++
	o := &Object{Content: content}
	o.Name = j.id + "-" + strconv.FormatUint(j.written, 36)
	j.own.Store(&ownBatch{o.Name, b})
	defer j.own.Store(nil)
	ttl := leaseOf(b, j.Clock.Now())
	if err := j.Storage.Create(ctx, Prefix+"/"+o.Name, o, &Object{}, uint64(ttl/time.Second)); err != nil {
		return fmt.Errorf("write to the ledger: %w", err)
	}
	return nil
}
