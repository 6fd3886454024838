package issued

import (
	"context"
	"fmt"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/apis/meta/internalversion"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/apiserver/pkg/registry/rest"
	"k8s.io/apiserver/pkg/storage"

	"lanyard.dev/internal/apiserver/outage"
	"lanyard.dev/internal/apiserver/registry"
	"lanyard.dev/internal/ledger"
)

// Config is what the storage of a kind depends on.
type Config[R any] struct {
	Memory *ledger.Memory
	// Settle waits until the memory contains everything that was written before the call. The error means that this cannot be
	// determined now.
	Settle func(context.Context) error
	// Revoke ends credentials. It returns when the revocations are durable and this process refuses the credentials.
	Revoke func(context.Context, []ledger.Revocation) error
	Check  Check[R]
	// BookmarkPeriod is how often a watch tells its client the latest revision, if the client wants to know it; 0 means every
	// minute.
	BookmarkPeriod time.Duration
}

const defaultBookmarkPeriod = time.Minute

// REST serves the records of one kind.
type REST[R any] struct {
	registry.Description
	kind[R]
	Config[R]
}

var (
	_ rest.Storage           = &REST[ledger.TokenRecord]{}
	_ rest.Getter            = &REST[ledger.TokenRecord]{}
	_ rest.Lister            = &REST[ledger.TokenRecord]{}
	_ rest.Watcher           = &REST[ledger.TokenRecord]{}
	_ rest.GracefulDeleter   = &REST[ledger.TokenRecord]{}
	_ rest.CollectionDeleter = &REST[ledger.TokenRecord]{}
)

// NewTokens returns the storage of IssuedTokens.
func NewTokens(d registry.Description, c Config[ledger.TokenRecord]) *REST[ledger.TokenRecord] {
	return newREST(d, tokens(), c)
}

// NewCertificates returns the storage of IssuedCertificates.
func NewCertificates(d registry.Description, c Config[ledger.CertificateRecord]) *REST[ledger.CertificateRecord] {
	return newREST(d, certificates(), c)
}

func newREST[R any](d registry.Description, k kind[R], c Config[R]) *REST[R] {
	if c.BookmarkPeriod == 0 {
		c.BookmarkPeriod = defaultBookmarkPeriod
	}
	return &REST[R]{d, k, c}
}

// New implements rest.Storage.
func (s *REST[R]) New() runtime.Object { return s.newObject() }

// NewList implements rest.Lister.
func (s *REST[R]) NewList() runtime.Object { return s.newList() }

// Destroy implements rest.Storage.
func (s *REST[R]) Destroy() {}

// Get implements rest.Getter.
func (s *REST[R]) Get(ctx context.Context, name string, options *metav1.GetOptions) (runtime.Object, error) {
	version := ""
	if options != nil {
		version = options.ResourceVersion
	}
	if err := s.settle(ctx, version); err != nil {
		return nil, err
	}
	record, err := s.find(ctx, name)
	if err != nil {
		return nil, err
	}
	return s.objectOf(ctx, &record)
}

// find returns the record with a name in the namespace of the request.
func (s *REST[R]) find(ctx context.Context, name string) (R, error) {
	record, ok := s.get(s.Memory, name)
	if !ok || s.Namespaced && s.namespace(&record) != request.NamespaceValue(ctx) {
		return record, apierrors.NewNotFound(s.resource, name)
	}
	return record, nil
}

func (s *REST[R]) objectOf(ctx context.Context, record *R) (runtime.Object, error) {
	phase, err := s.phase(ctx, record)
	if err != nil {
		return nil, err
	}
	return s.object(record, phase), nil
}

// settle waits until the records are as new as a resource version requires: any records for "0", those of that revision for a
// number, and everything that was written before the call for "".
func (s *REST[R]) settle(ctx context.Context, version string) error {
	revision, err := parseVersion(version)
	if err != nil {
		return err
	}
	if version != "" && revision <= s.Memory.Revision() {
		return nil
	}
	// The revision may be one at which other objects changed. No revision of storage is later than everything.
	if err := s.Settle(ctx); err != nil {
		return outage.New(err)
	}
	return nil
}

// List implements rest.Lister.
func (s *REST[R]) List(ctx context.Context, options *internalversion.ListOptions) (runtime.Object, error) {
	if options == nil {
		options = &internalversion.ListOptions{}
	}
	from, err := s.start(ctx, options)
	if err != nil {
		return nil, err
	}
	f, err := s.newFilter(ctx, options)
	if err != nil {
		return nil, err
	}
	found, err := s.search(ctx, &f, from.after, int(options.Limit))
	if err != nil {
		return nil, err
	}
	list := s.list(found.objects)
	accessor, err := meta.ListAccessor(list)
	if err != nil {
		return nil, err
	}
	accessor.SetResourceVersion(versionText(from.revision))
	if found.more {
		next, err := storage.EncodeContinue("/"+found.last, "/", int64(from.revision))
		if err != nil {
			return nil, err
		}
		accessor.SetContinue(next)
	}
	return list, nil
}

// position is where a page of a list begins. revision is the revision of the first page: a client that watches from there gets
// all changes that happened between the pages.
type position struct {
	after    string
	revision uint64
}

func (s *REST[R]) start(ctx context.Context, options *internalversion.ListOptions) (position, error) {
	if options.Continue != "" {
		if options.ResourceVersion != "" && options.ResourceVersion != "0" {
			return position{}, apierrors.NewBadRequest("specifying resource version is not allowed when using continue")
		}
		key, revision, err := storage.DecodeContinue(options.Continue, "/")
		if err != nil || revision < 0 {
			return position{}, apierrors.NewBadRequest(fmt.Sprintf("invalid continue token: %v", err))
		}
		// Another replica may have answered the page before, and this one may be behind it.
		return position{strings.TrimPrefix(key, "/"), uint64(revision)}, s.settle(ctx, "")
	}
	if err := s.settle(ctx, options.ResourceVersion); err != nil {
		return position{}, err
	}
	revision := s.Memory.Revision()
	if options.ResourceVersionMatch == metav1.ResourceVersionMatchExact && options.ResourceVersion != versionText(revision) {
		return position{}, apierrors.NewResourceExpired("lists of an earlier resource version are not available: list without resourceVersionMatch=Exact")
	}
	return position{"", max(revision, 1)}, nil
}

// found are the objects of a page.
type found struct {
	objects []runtime.Object
	last    string // the position of the last one
	more    bool
}

// search returns up to limit objects behind a position, or all if limit is 0.
func (s *REST[R]) search(ctx context.Context, f *filter[R], after string, limit int) (found, error) {
	found := found{last: after}
	err := s.each(f, after, limit, func(record *R) (bool, error) {
		if limit > 0 && len(found.objects) == limit {
			found.more = true
			return false, nil
		}
		if ctx.Err() != nil {
			return false, apierrors.NewTimeoutError("the list took too long: ask for smaller pages", 1)
		}
		phase, err := s.phase(ctx, record)
		if err == nil && f.matchPhase(phase) {
			found.objects, found.last = append(found.objects, s.object(record, phase)), s.position(record)
		}
		return true, err
	})
	return found, err
}

// each calls visit for each record that the filter selects, apart from the phase, until visit returns false or an error. The
// caller expects to visit about limit records.
func (s *REST[R]) each(f *filter[R], after string, limit int, visit func(*R) (bool, error)) error {
	if f.query.id != "" {
		record, ok := s.get(s.Memory, f.query.id)
		if !ok || s.position(&record) <= after || !f.match(&record) {
			return nil
		}
		_, err := visit(&record)
		return err
	}
	if limit > 0 {
		limit++ // One more tells whether there are more.
	}
	for more := true; more; {
		var page []R
		page, more = s.page(s.Memory, &f.query, after, limit)
		for i := range page {
			after = s.position(&page[i])
			if !f.match(&page[i]) {
				continue
			}
			if next, err := visit(&page[i]); err != nil || !next {
				return err
			}
		}
	}
	return nil
}
