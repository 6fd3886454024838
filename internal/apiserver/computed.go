package apiserver

import (
	"fmt"
	"net/http"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/audit"
	"k8s.io/apiserver/pkg/endpoints/handlers/responsewriters"
	"k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/apiserver/pkg/registry/rest"

	identityv1alpha1 "lanyard.dev/apis/identity/v1alpha1"
)

const (
	// reasonParameter is the parameter of a deletion that states why a credential is revoked.
	reasonParameter = "reason"
	// reasonAnnotation is the annotation of the audit event with that reason.
	reasonAnnotation = identityv1alpha1.GroupName + "/reason"
	maxReasonBytes   = 1024
)

// computedRequests treats the requests for the resources of identity.lanyard.dev, whose objects are made from other data. It records
// in the audit log why a credential is revoked, and explains why objects cannot be created or changed: the library would answer
// with a text that fits every resource.
type computedRequests struct {
	api        http.Handler
	serializer runtime.NegotiatedSerializer
	served     map[schema.GroupVersion]map[string]rest.Storage
}

// ServeHTTP implements http.Handler.
func (c *computedRequests) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	info, ok := request.RequestInfoFrom(r.Context())
	if !ok || info.APIGroup != identityv1alpha1.GroupName {
		c.api.ServeHTTP(w, r)
		return
	}
	gv := schema.GroupVersion{Group: info.APIGroup, Version: info.APIVersion}
	storage := c.served[gv][info.Resource]
	if storage == nil || info.Subresource != "" {
		c.api.ServeHTTP(w, r)
		return
	}
	if err := checkComputed(info, storage, r); err != nil {
		responsewriters.ErrorNegotiated(err, c.serializer, gv, w, r)
		return
	}
	c.api.ServeHTTP(w, r)
}

func checkComputed(info *request.RequestInfo, storage rest.Storage, r *http.Request) error {
	resource := schema.GroupResource{Group: info.APIGroup, Resource: info.Resource}
	switch info.Verb {
	case "create":
		if _, ok := storage.(rest.Creater); !ok {
			return notAllowed(resource, "created")
		}
	case "update", "patch":
		if _, ok := storage.(rest.Updater); !ok {
			return notAllowed(resource, "changed")
		}
	case "delete", "deletecollection":
		reason := r.URL.Query().Get(reasonParameter)
		if len(reason) > maxReasonBytes {
			return apierrors.NewBadRequest(fmt.Sprintf("the parameter %s has more than %d bytes", reasonParameter, maxReasonBytes))
		}
		if reason != "" {
			audit.AddAuditAnnotation(r.Context(), reasonAnnotation, reason)
		}
	}
	return nil
}

// notAllowed returns the error of a request that no storage serves.
func notAllowed(resource schema.GroupResource, what string) error {
	err := apierrors.NewMethodNotSupported(resource, what)
	err.ErrStatus.Message = fmt.Sprintf("%s cannot be %s: the server makes the objects from its own records", resource, what)
	err.ErrStatus.Details = &metav1.StatusDetails{Group: resource.Group, Kind: resource.Resource}
	return err
}
