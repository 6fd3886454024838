package apiserver

import (
	"net/http"
	"strings"

	"k8s.io/apiserver/pkg/endpoints/request"
)

// crdPath is where clients such as kubectl and Helm look whether a kind that the OpenAPI document does not describe, or that
// cannot be patched, such as a review, is a custom resource.
const crdPath = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"

// noCRDs answers that there are none. Without an answer these clients would report that instead of what is wrong with the
// kind.
func noCRDs(other http.Handler) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet {
			other.ServeHTTP(w, r)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write([]byte(`{"apiVersion":"apiextensions.k8s.io/v1","kind":"CustomResourceDefinitionList","metadata":{"resourceVersion":"1"},"items":[]}`))
	}
}

// requestInfos reads crdPath as a path like those of discovery, not as a resource: no custom resource definition is ever
// stored here, and that there are none is no secret to those who may read discovery.
type requestInfos struct {
	request.RequestInfoResolver
}

// NewRequestInfo implements request.RequestInfoResolver.
func (i requestInfos) NewRequestInfo(r *http.Request) (*request.RequestInfo, error) {
	if r.URL.Path == crdPath {
		return &request.RequestInfo{Path: crdPath, Verb: strings.ToLower(r.Method)}, nil
	}
	return i.RequestInfoResolver.NewRequestInfo(r)
}
