package mirror

import (
	"context"
	"strconv"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/storage"
)

// deliveringStorage is storage that delivers each write to a feed before the write returns.
type deliveringStorage struct {
	storage.Interface
	feed   *Feed
	newObj func() runtime.Object
}

// Create implements storage.Interface.
func (s *deliveringStorage) Create(ctx context.Context, key string, obj, out runtime.Object, ttl uint64) error {
	err := s.Interface.Create(ctx, key, obj, out, ttl)
	switch {
	case storage.IsExist(err):
		s.deliverStored(ctx, key)
	case err == nil && out != nil:
		s.feed.deliverWritten(out, false)
	}
	return err
}

// deliverStored delivers the object that made a create fail. From the error the caller learns that the object exists,
// possibly before the request that created it has delivered it.
func (s *deliveringStorage) deliverStored(ctx context.Context, key string) {
	stored := s.newObj()
	if err := s.Interface.Get(ctx, key, storage.GetOptions{}, stored); err == nil {
		s.feed.deliverWritten(stored, false)
	}
}

// Delete implements storage.Interface.
func (s *deliveringStorage) Delete(ctx context.Context, key string, out runtime.Object, preconditions *storage.Preconditions,
	validate storage.ValidateObjectFunc, cached runtime.Object, opts storage.DeleteOptions,
) error {
	err := s.Interface.Delete(ctx, key, out, preconditions, validate, cached, opts)
	if err == nil {
		s.feed.deliverWritten(out, true)
	}
	return err
}

// GuaranteedUpdate implements storage.Interface.
func (s *deliveringStorage) GuaranteedUpdate(ctx context.Context, key string, destination runtime.Object, ignoreNotFound bool,
	preconditions *storage.Preconditions, update storage.UpdateFunc, cached runtime.Object,
) error {
	err := s.Interface.GuaranteedUpdate(ctx, key, destination, ignoreNotFound, preconditions, update, cached)
	if err == nil {
		s.feed.deliverWritten(destination, false)
	}
	return err
}

// cachedReads is storage that answers a read from the watch cache, once the cache has reached the latest write of this
// process. It is correct only if no other process writes.
type cachedReads struct {
	storage.Interface
	feed *Feed
}

// Get implements storage.Interface.
func (s *cachedReads) Get(ctx context.Context, key string, opts storage.GetOptions, out runtime.Object) error {
	latest := s.feed.Latest()
	if opts.ResourceVersion != "" || latest == 0 {
		return s.Interface.Get(ctx, key, opts, out)
	}
	cached := opts
	cached.ResourceVersion = strconv.FormatUint(latest, 10)
	err := s.Interface.Get(ctx, key, cached, out)
	if storage.IsTooLargeResourceVersion(err) {
		// The cache did not reach the revision in the time that it waits. Read from etcd instead.
		return s.Interface.Get(ctx, key, opts, out)
	}
	return err
}
