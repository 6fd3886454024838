package apiserver

import (
	"net/http"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/endpoints/handlers/responsewriters"
)

// notFound answers every path that nothing is installed for with a Status, as for an unknown resource of a served group.
// The library's own handler answers with the paths that exist, which are for those who may read "/".
func notFound(codecs runtime.NegotiatedSerializer) http.Handler {
	return refusal(http.StatusNotFound, codecs)
}

// refusal answers with the Status of an HTTP status code.
func refusal(code int, codecs runtime.NegotiatedSerializer) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		err := apierrors.NewGenericServerResponse(code, "", schema.GroupResource{}, "", "", 0, false)
		responsewriters.ErrorNegotiated(err, codecs, schema.GroupVersion{}, w, r)
	})
}
