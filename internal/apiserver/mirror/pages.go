package mirror

import (
	"context"

	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/storage"
)

// A list is read in pages, so that only one page is in memory at a time. etcd counts all the objects that follow for each page,
// so a page of small objects has more of them.
const (
	pageBytes         = 4 << 20
	minPage, maxPage  = 500, 10_000
	listedObjectBytes = 1 << 10 // the assumed size of an object that does not know its size
)

// eachListed calls yield with every object that is stored at one revision, and returns that revision. It returns an error if
// etcd compacts the revision before the last page.
func (f *Feed) eachListed(ctx context.Context, yield func(runtime.Object)) (revision string, err error) {
	predicate := storage.Everything
	predicate.Limit = minPage
	for {
		list := f.newList()
		if err := f.raw.GetList(ctx, f.prefix, storage.ListOptions{Predicate: predicate, Recursive: true}, list); err != nil {
			return "", err
		}
		accessor, err := meta.ListAccessor(list)
		if err != nil {
			return "", err
		}
		count, bytes := 0, 0
		err = meta.EachListItem(list, func(obj runtime.Object) error {
			count, bytes = count+1, bytes+sizeOf(obj)
			yield(obj)
			return nil
		})
		if err != nil || accessor.GetContinue() == "" {
			return accessor.GetResourceVersion(), err
		}
		predicate.Continue, predicate.Limit = accessor.GetContinue(), nextPage(count, bytes)
	}
}

// nextPage returns how many objects the next page has, from the number and the bytes of the objects of the last one.
func nextPage(count, bytes int) int64 {
	return int64(min(max(pageBytes/max(1, bytes/max(1, count)), minPage), maxPage))
}

func sizeOf(obj runtime.Object) int {
	if sized, ok := obj.(interface{ Size() int }); ok {
		return sized.Size()
	}
	return listedObjectBytes
}
