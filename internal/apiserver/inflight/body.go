package inflight

import (
	"fmt"
	"io"
	"net/http"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apiserver/pkg/endpoints/request"
)

// SmallBody limits the body of a request that stores no object of its own: a review, a token request, a binding, an
// eviction, the options of a deletion. The largest that makes sense is a TokenReview of a 16 KiB token.
const SmallBody = 64 << 10

// bodyLimit returns how large the body of a request may be. stored is the limit for objects that are stored; it is
// Kubernetes' 3 MiB, although etcd takes 1.5 MiB, because an object is smaller in etcd's form than as JSON.
func bodyLimit(info *request.RequestInfo, stored int64) int64 {
	switch {
	case !info.IsResourceRequest, info.Verb == "delete", info.Verb == "deletecollection", isRead(info):
		return SmallBody
	case info.APIGroup == "authentication.k8s.io", info.APIGroup == "authorization.k8s.io":
		return SmallBody
	}
	switch info.Subresource {
	case "token", "binding", "eviction", "exec", "attach", "portforward":
		return SmallBody
	}
	return stored
}

// bodySize returns what a body is counted as: nothing up to SmallBody, which the limit on places bounds well enough, and
// the most it may have if its length is not known.
func (l *Limiter) bodySize(r *http.Request, info *request.RequestInfo) int64 {
	size := r.ContentLength
	if size < 0 {
		size = bodyLimit(info, l.config.MaxBodyBytes)
	}
	if size <= SmallBody {
		return 0
	}
	return size
}

// boundedBody ends a body of unknown length at the limit of its kind.
type boundedBody struct {
	io.ReadCloser
	limit, left int64
}

// Read implements io.Reader. One byte over the limit is read to learn that the body does not end there.
func (b *boundedBody) Read(p []byte) (int, error) {
	if b.left < 0 {
		return 0, apierrors.NewRequestEntityTooLargeError(fmt.Sprintf("limit is %d", b.limit))
	}
	if int64(len(p)) > b.left+1 {
		p = p[:b.left+1]
	}
	n, err := b.ReadCloser.Read(p)
	if b.left -= int64(n); b.left < 0 {
		return n - 1, apierrors.NewRequestEntityTooLargeError(fmt.Sprintf("limit is %d", b.limit))
	}
	return n, err
}
