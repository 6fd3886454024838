package mirror

import (
	"context"
	"strconv"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/storage"
)

// telling is storage that tells a feed of each write before the write returns.
type telling struct {
	storage.Interface
	feed   *Feed
	newObj func() runtime.Object
}

// Create implements storage.Interface.
func (t *telling) Create(ctx context.Context, key string, obj, out runtime.Object, ttl uint64) error {
	err := t.Interface.Create(ctx, key, obj, out, ttl)
	switch {
	case storage.IsExist(err):
		t.tellStored(ctx, key)
	case err == nil && out != nil:
		t.feed.tellWritten(out, false)
	}
	return err
}

// tellStored tells of an object that the caller is about to learn of by being refused: whoever wrote it may not have
// come to tell it yet.
func (t *telling) tellStored(ctx context.Context, key string) {
	stored := t.newObj()
	if err := t.Interface.Get(ctx, key, storage.GetOptions{}, stored); err == nil {
		t.feed.tellWritten(stored, false)
	}
}

// Delete implements storage.Interface.
func (t *telling) Delete(ctx context.Context, key string, out runtime.Object, preconditions *storage.Preconditions,
	validate storage.ValidateObjectFunc, cached runtime.Object, opts storage.DeleteOptions,
) error {
	err := t.Interface.Delete(ctx, key, out, preconditions, validate, cached, opts)
	if err == nil {
		t.feed.tellWritten(out, true)
	}
	return err
}

// GuaranteedUpdate implements storage.Interface.
func (t *telling) GuaranteedUpdate(ctx context.Context, key string, destination runtime.Object, ignoreNotFound bool,
	preconditions *storage.Preconditions, update storage.UpdateFunc, cached runtime.Object,
) error {
	err := t.Interface.GuaranteedUpdate(ctx, key, destination, ignoreNotFound, preconditions, update, cached)
	if err == nil {
		t.feed.tellWritten(destination, false)
	}
	return err
}

// remembering is storage that answers reads from the watch cache, at the last write this process made. It is right
// only where no other process writes.
type remembering struct {
	storage.Interface
	feed *Feed
}

// Get implements storage.Interface.
func (r *remembering) Get(ctx context.Context, key string, opts storage.GetOptions, out runtime.Object) error {
	latest := r.feed.Latest()
	if opts.ResourceVersion != "" || latest == 0 {
		return r.Interface.Get(ctx, key, opts, out)
	}
	cached := opts
	cached.ResourceVersion = strconv.FormatUint(latest, 10)
	err := r.Interface.Get(ctx, key, cached, out)
	if storage.IsTooLargeResourceVersion(err) {
		// The cache is behind for longer than it waits. Storage itself is not.
		return r.Interface.Get(ctx, key, opts, out)
	}
	return err
}
