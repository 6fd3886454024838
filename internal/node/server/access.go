package server

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"time"

	authorizationv1 "k8s.io/api/authorization/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/group"
	x509request "k8s.io/apiserver/pkg/authentication/request/x509"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/klog/v2"
)

// Reviews asks the authority what a user may do.
type Reviews interface {
	Create(ctx context.Context, review *authorizationv1.SubjectAccessReview, opts metav1.CreateOptions) (*authorizationv1.SubjectAccessReview, error)
}

// reviewTimeout bounds waiting for the authority's answer.
const reviewTimeout = 10 * time.Second

// byCertificate knows users by client certificates of the CAs.
func byCertificate(cas func() *x509.CertPool) authenticator.Request {
	certificates := x509request.NewDynamic(func() (x509.VerifyOptions, bool) {
		options := x509request.DefaultVerifyOptions()
		options.Roots = cas()
		return options, options.Roots != nil
	}, x509request.CommonNameUserConversion)
	return group.NewAuthenticatedGroupAdder(certificates)
}

// allowed lets through who the authority says may use this verb on the node's subresource. Nothing is remembered: a right
// that was taken away is gone.
func (s *Server) allowed(verb, subresource string, h http.HandlerFunc) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		who, err := s.users.identify(r)
		if err != nil {
			unidentified(w, err)
			return
		}
		asks := fmt.Sprintf("user=%s, verb=%s, resource=nodes, subresource=%s", who.GetName(), verb, subresource)
		may, err := s.review(r.Context(), who, verb, subresource)
		switch {
		case err != nil:
			klog.ErrorS(err, "The authority did not say whether a request to this node is allowed", "user", who.GetName(), "verb", verb, "subresource", subresource)
			http.Error(w, "Authorization error ("+asks+")", http.StatusInternalServerError)
		case !may:
			http.Error(w, "Forbidden ("+asks+")", http.StatusForbidden)
		default:
			h(w, r)
		}
	})
}

// unidentified answers a request of which it is not known who sent it. An authority that does not answer is not the token's
// fault: a client must not throw the token away.
func unidentified(w http.ResponseWriter, err error) {
	switch {
	case errors.Is(err, errUnauthorized):
		http.Error(w, "Unauthorized", http.StatusUnauthorized)
	case errors.Is(err, errTooMany):
		w.Header().Set("Retry-After", "1")
		http.Error(w, "Too many requests", http.StatusTooManyRequests)
	default:
		klog.ErrorS(err, "The authority did not say whose token a request to this node has")
		w.Header().Set("Retry-After", "1")
		http.Error(w, "The authority does not answer", http.StatusServiceUnavailable)
	}
}

func (s *Server) review(ctx context.Context, who user.Info, verb, subresource string) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, reviewTimeout)
	defer cancel()
	review := &authorizationv1.SubjectAccessReview{Spec: authorizationv1.SubjectAccessReviewSpec{
		User: who.GetName(), UID: who.GetUID(), Groups: who.GetGroups(), Extra: map[string]authorizationv1.ExtraValue{},
		ResourceAttributes: &authorizationv1.ResourceAttributes{
			Verb: verb, Version: "v1", Resource: "nodes", Subresource: subresource, Name: s.NodeName,
		},
	}}
	for key, values := range who.GetExtra() {
		review.Spec.Extra[key] = values
	}
	answer, err := s.Reviews.Create(ctx, review, metav1.CreateOptions{})
	if err != nil {
		return false, err
	}
	return answer.Status.Allowed && !answer.Status.Denied, nil
}
