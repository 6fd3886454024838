package mirror

import (
	"cmp"
	"context"
	"fmt"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/registry/generic"
	"k8s.io/apiserver/pkg/storage"
	"k8s.io/apiserver/pkg/storage/cacher"
	"k8s.io/apiserver/pkg/storage/storagebackend"
	"k8s.io/apiserver/pkg/storage/storagebackend/factory"
	"k8s.io/client-go/tools/cache"
	"k8s.io/utils/clock"

	"lanyard.dev/internal/hint"
)

// Mirror holds the feeds of resources and makes the storage that delivers writes to them.
type Mirror struct {
	base       generic.RESTOptionsGetter
	soleWriter bool
	maxLag     time.Duration
	feeds      map[schema.GroupResource]*Feed
}

// Config configures a Mirror.
type Config struct {
	// Base connects to the storage.
	Base generic.RESTOptionsGetter
	// SoleWriter is whether this process is the only writer of the storage, as with an embedded etcd. Reads are then
	// served from memory once memory has reached the latest write, and feeds need no proof of freshness.
	SoleWriter bool
	// MaxLag is how old the latest proof of freshness may be; 0 means the constant MaxLag.
	MaxLag time.Duration
}

// New returns a mirror with a feed for each of the resources.
func New(c Config, resources ...schema.GroupResource) *Mirror {
	m := &Mirror{base: c.Base, soleWriter: c.SoleWriter, maxLag: c.MaxLag, feeds: map[schema.GroupResource]*Feed{}}
	for _, r := range resources {
		m.feeds[r] = newFeed(r, c)
	}
	return m
}

func newFeed(resource schema.GroupResource, c Config) *Feed {
	f := &Feed{
		resource: resource, soleWriter: c.SoleWriter, maxLag: cmp.Or(c.MaxLag, MaxLag), timing: defaultTiming, delivered: map[string]delivery{},
		synced: make(chan struct{}), unreadable: make(chan error, 1),
	}
	f.setClock(clock.RealClock{})
	return f
}

// Feed returns the feed of a resource, or nil for a resource that was not passed to New. The store of the resource must
// exist before Run.
func (m *Mirror) Feed(resource schema.GroupResource) *Feed { return m.feeds[resource] }

// Run runs every feed until ctx ends.
func (m *Mirror) Run(ctx context.Context) {
	var running sync.WaitGroup
	for _, f := range m.feeds {
		running.Go(func() { f.Run(ctx) })
	}
	running.Wait()
}

// unreadableHint is the next step if the storage holds objects that cannot be read.
const unreadableHint = "use the encryption configuration the objects were written with, or restore them from a backup"

// Fresh returns ErrStale if one of the feeds is not fresh.
func (m *Mirror) Fresh() error {
	for _, f := range m.feeds {
		if err := f.Fresh(); err != nil {
			return err
		}
	}
	return nil
}

// WaitSynced waits until every feed has delivered what was stored at the start. It returns an error with a hint at once if
// that cannot be read.
func (m *Mirror) WaitSynced(ctx context.Context) error {
	for r, f := range m.feeds {
		select {
		case <-f.synced:
		case err := <-f.unreadable:
			return hint.New(fmt.Errorf("the storage holds objects that cannot be read: %w", err), unreadableHint)
		case <-ctx.Done():
			return fmt.Errorf("read %s from storage: %w", r, context.Cause(ctx))
		}
	}
	return nil
}

// GetRESTOptions implements generic.RESTOptionsGetter.
func (m *Mirror) GetRESTOptions(resource schema.GroupResource, example runtime.Object) (generic.RESTOptions, error) {
	options, err := m.base.GetRESTOptions(resource, example)
	if err != nil {
		return options, err
	}
	options.Decorator = m.decorate
	return options, nil
}

// decorate builds storage in layers: etcd, the delivery of writes to the feed, and the watch cache.
func (m *Mirror) decorate(config *storagebackend.ConfigForResource, prefix string, keyFunc func(runtime.Object) (string, error),
	newFunc, newListFunc func() runtime.Object, attrs storage.AttrFunc, triggers storage.IndexerFuncs, indexers *cache.Indexers,
) (storage.Interface, factory.DestroyFunc, error) {
	raw, closeRaw, err := generic.NewRawStorage(config, newFunc, newListFunc, prefix)
	if err != nil {
		return nil, nil, err
	}
	feed, ok := m.feeds[config.GroupResource]
	if ok {
		feed.raw, feed.prefix, feed.newList = raw, prefix, newListFunc
		raw = &deliveringStorage{Interface: raw, feed: feed, newObj: newFunc}
	}
	c, err := cacher.NewCacherFromConfig(cacher.Config{
		Storage: boundedHistory{raw}, Versioner: storage.APIObjectVersioner{}, GroupResource: config.GroupResource,
		EventsHistoryWindow: config.EventsHistoryWindow, ResourcePrefix: prefix, KeyFunc: keyFunc,
		NewFunc: newFunc, NewListFunc: newListFunc, GetAttrsFunc: attrs, IndexerFuncs: triggers, Indexers: indexers,
		Codec: config.Codec,
	})
	if err != nil {
		closeRaw()
		return nil, nil, fmt.Errorf("watch cache of %s: %w", config.GroupResource, err)
	}
	cached := cacher.NewCacheDelegator(c, raw)
	var top storage.Interface = cached
	if ok && m.soleWriter {
		top = &cachedReads{Interface: cached, feed: feed}
	}
	stop := sync.OnceFunc(func() { cached.Stop(); c.Stop(); closeRaw() })
	return top, stop, nil
}

// Unserved makes the storage of a resource that is not served, and its feed. There is no watch cache of it. Unserved must be called
// before Run. prefix begins with a slash.
func (m *Mirror) Unserved(config *storagebackend.ConfigForResource, prefix string, newFunc, newListFunc func() runtime.Object,
) (storage.Interface, *Feed, factory.DestroyFunc, error) {
	raw, closeRaw, err := generic.NewRawStorage(config, newFunc, newListFunc, prefix)
	if err != nil {
		return nil, nil, nil, fmt.Errorf("storage of %s: %w", config.GroupResource, err)
	}
	feed := newFeed(config.GroupResource, Config{SoleWriter: m.soleWriter, MaxLag: m.maxLag})
	feed.raw, feed.prefix, feed.newList = raw, prefix, newListFunc
	m.feeds[config.GroupResource] = feed
	return &deliveringStorage{Interface: raw, feed: feed, newObj: newFunc}, feed, closeRaw, nil
}
