package issuance

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/storage"
	"k8s.io/klog/v2"

	"lanyard.dev/internal/ledger"
)

const (
	// useShards is the number of objects that hold the last uses of all credentials. A replica rewrites those in which something
	// has changed, so their number stays the same. All replicas share them: a replica that ends leaves none behind.
	useShards = 64
	// usesPeriod is the time between two writes. A crash loses the uses since the last write.
	usesPeriod = time.Minute
)

// uses are the last uses that are not written yet, divided as their objects are.
type uses [useShards]struct {
	mu      sync.Mutex
	pending map[string]ledger.Use // by ID
}

// shardOf returns the number of the object for a credential. It must be the same in every replica and version.
func shardOf(id string) int {
	hash := uint32(2166136261) // FNV-1a
	for i := range len(id) {
		hash = (hash ^ uint32(id[i])) * 16777619
	}
	return int(hash % useShards)
}

// Used notes that a credential was accepted, from an IP address or, if that is not known, from "". A credential without a record
// is ignored.
func (j *Journal) Used(id, address string) {
	use := ledger.Use{ID: id, At: j.Clock.Now(), Address: address}
	j.Memory.Used(use)
	s := &j.uses[shardOf(id)]
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.pending == nil {
		s.pending = map[string]ledger.Use{}
	}
	s.pending[id] = use
}

// writeUsesRegularly writes the last uses once a minute until ctx ends.
func (j *Journal) writeUsesRegularly(ctx context.Context) {
	tick := j.Clock.NewTicker(usesPeriod)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C():
			if err := j.WriteUses(ctx); err != nil && ctx.Err() == nil {
				klog.ErrorS(err, "Could not write when credentials were last used; trying again in a minute")
			}
		}
	}
}

// WriteUses writes the last uses that are not written yet. What cannot be written stays for the next call.
func (j *Journal) WriteUses(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, usesPeriod/2)
	defer cancel()
	var faults []error
	for shard := range useShards {
		if err := j.writeShard(ctx, shard); err != nil {
			faults = append(faults, err)
		}
	}
	return errors.Join(faults...)
}

func (j *Journal) writeShard(ctx context.Context, shard int) error {
	s := &j.uses[shard]
	s.mu.Lock()
	taken := s.pending
	s.pending = nil
	s.mu.Unlock()
	maps.DeleteFunc(taken, func(id string, _ ledger.Use) bool { return j.Memory.State(id) != ledger.Live })
	if len(taken) == 0 {
		return nil
	}
	err := j.mergeUses(ctx, shard, taken)
	if err == nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, use := range s.pending {
		taken[id] = use
	}
	s.pending = taken
	return fmt.Errorf("write the last uses of credentials: %w", err)
}

// mergeUses adds uses to those that are stored, which other replicas may have written.
func (j *Journal) mergeUses(ctx context.Context, shard int, added map[string]ledger.Use) error {
	name := fmt.Sprintf("uses-%02d", shard)
	update := func(obj runtime.Object, _ storage.ResponseMeta) (runtime.Object, *uint64, error) {
		stored := obj.(*Object)
		content, err := j.merged(stored.Content, added)
		if err != nil {
			return nil, nil, err
		}
		next := &Object{Content: content}
		next.Name, next.ResourceVersion = name, stored.ResourceVersion
		return next, nil, nil
	}
	return j.Storage.GuaranteedUpdate(ctx, Prefix+"/"+name, &Object{}, true, nil, update, nil)
}

// merged returns the encoded latest uses of live credentials, of those that are stored and those that are added.
func (j *Journal) merged(stored []byte, added map[string]ledger.Use) ([]byte, error) {
	latest := map[string]ledger.Use{}
	if before, err := ledger.Unmarshal(stored); err == nil { // what cannot be read is replaced
		for _, use := range before.Uses {
			latest[use.ID] = use
		}
	}
	for id, use := range added {
		if latest[id].At.Before(use.At) {
			latest[id] = use
		}
	}
	var b ledger.Batch
	for id, use := range latest {
		if j.Memory.State(id) == ledger.Live {
			b.Uses = append(b.Uses, use)
		}
	}
	slices.SortFunc(b.Uses, func(x, y ledger.Use) int { return cmp.Or(y.At.Compare(x.At), cmp.Compare(x.ID, y.ID)) })
	for {
		content, err := b.Marshal()
		if err == nil || len(b.Uses) < 2 {
			return content, err
		}
		b.Uses = b.Uses[:len(b.Uses)/2] // there are too many for one object: the latest are kept
	}
}
