package apiserver

import "net/http"

// crdPath is where kubectl looks whether a kind that cannot be patched, such as a review, is a custom resource.
const crdPath = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"

// noCRDs answers that there are none. Without an answer kubectl refuses to create a review from a file.
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
