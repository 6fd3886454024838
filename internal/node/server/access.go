package server

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"strings"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/group"
	x509request "k8s.io/apiserver/pkg/authentication/request/x509"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/client-go/util/flowcontrol"
	"k8s.io/klog/v2"
	"k8s.io/utils/lru"

	"lanyard.dev/internal/token"
)

// Reviews creates SubjectAccessReviews.
type Reviews interface {
	Create(ctx context.Context, review *authorizationv1.SubjectAccessReview, opts metav1.CreateOptions) (*authorizationv1.SubjectAccessReview, error)
}

// reviewTimeout bounds the wait for the authority's answer.
const reviewTimeout = 10 * time.Second

// byCertificate authenticates users by client certificates of the CAs.
func byCertificate(cas func() *x509.CertPool) authenticator.Request {
	certificates := x509request.NewDynamic(func() (x509.VerifyOptions, bool) {
		options := x509request.DefaultVerifyOptions()
		options.Roots = cas()
		return options, options.Roots != nil
	}, x509request.CommonNameUserConversion)
	return group.NewAuthenticatedGroupAdder(certificates)
}

// authorized calls h if the authority allows the user the verb on the node's subresource. It caches no answer, so that a
// revoked permission has no effect any more.
func (s *Server) authorized(verb, subresource string, h http.HandlerFunc) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		who, err := s.clients.identify(r)
		if err != nil {
			writeAuthenticationError(w, err)
			return
		}
		asks := fmt.Sprintf("user=%s, verb=%s, resource=nodes, subresource=%s", who.GetName(), verb, subresource)
		may, err := s.review(r.Context(), who, verb, subresource)
		switch {
		case err != nil:
			klog.ErrorS(err, "The authority did not authorize a request to this node", "user", who.GetName(), "verb", verb, "subresource", subresource)
			http.Error(w, "Authorization error ("+asks+")", http.StatusInternalServerError)
		case !may:
			http.Error(w, "Forbidden ("+asks+")", http.StatusForbidden)
		default:
			h(w, r)
		}
	})
}

// writeAuthenticationError answers a request whose user is not known. If the authority does not answer, the status is not 401,
// because clients discard a token that is answered with 401.
func writeAuthenticationError(w http.ResponseWriter, err error) {
	switch {
	case errors.Is(err, errUnauthorized):
		http.Error(w, "Unauthorized", http.StatusUnauthorized)
	case errors.Is(err, errTooMany):
		w.Header().Set("Retry-After", "1")
		http.Error(w, "Too many requests", http.StatusTooManyRequests)
	default:
		klog.ErrorS(err, "The authority did not review the token of a request to this node")
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

// TokenReviews creates TokenReviews.
type TokenReviews interface {
	Create(ctx context.Context, review *authenticationv1.TokenReview, opts metav1.CreateOptions) (*authenticationv1.TokenReview, error)
}

var (
	// errUnauthorized is the error of a request without a valid credential.
	errUnauthorized = errors.New("unauthorized")
	// errTooMany is the error of a request whose token cannot be reviewed because of the bounds below.
	errTooMany = errors.New("too many requests")
)

// Anyone who reaches the node can send it tokens, and each token costs the authority a review. These constants bound the
// reviews.
const (
	// The rate of reviews for one client address.
	reviewsPerSecond, reviewBurst = 20, 40
	// Concurrent reviews for one address, and for all.
	addressReviews, nodeReviews = 4, 16
	// maxAddresses is the number of addresses whose rate is remembered: those that sent a token last.
	maxAddresses = 4096
)

// clientAuthenticator authenticates users by client certificates and bearer tokens. It caches no review.
type clientAuthenticator struct {
	certificates authenticator.Request
	reviews      TokenReviews
	addresses    *lru.Cache // of *clientAddress, by address
	slots        chan struct{}
}

// clientAddress bounds the reviews for one address.
type clientAddress struct {
	rate  flowcontrol.PassiveRateLimiter
	slots chan struct{}
}

func newClientAuthenticator(certificates authenticator.Request, reviews TokenReviews) *clientAuthenticator {
	return &clientAuthenticator{certificates, reviews, lru.New(maxAddresses), make(chan struct{}, nodeReviews)}
}

// identify returns the user of the request. The error is errUnauthorized, errTooMany, or another one if the authority does not
// answer. A request with an invalid certificate is refused, even if it has a valid token.
func (a *clientAuthenticator) identify(r *http.Request) (user.Info, error) {
	response, ok, err := a.certificates.AuthenticateRequest(r)
	switch {
	case err != nil:
		return nil, errUnauthorized
	case ok:
		return response.User, nil
	}
	text, ok := bearer(r)
	if !ok {
		return nil, errUnauthorized
	}
	// The container runtime, to which a session is proxied, must not get the token.
	r.Header.Del("Authorization")
	return a.review(r, text)
}

// bearer returns the request's bearer token. ok is false if there is none, or if its text cannot be a token.
func bearer(r *http.Request) (text string, ok bool) {
	values := r.Header.Values("Authorization")
	if len(values) != 1 {
		return "", false
	}
	scheme, text, _ := strings.Cut(values[0], " ")
	if !strings.EqualFold(scheme, "Bearer") || text == "" || len(text) > token.MaxSize || strings.ContainsAny(text, " \t") {
		return "", false
	}
	return text, true
}

func (a *clientAuthenticator) review(r *http.Request, text string) (user.Info, error) {
	from := a.address(r.RemoteAddr)
	if !from.rate.TryAccept() {
		return nil, errTooMany
	}
	// While the authority is slow, one address must not take all slots of the node.
	for _, slots := range []chan struct{}{from.slots, a.slots} {
		select {
		case slots <- struct{}{}:
			defer func() { <-slots }()
		default:
			return nil, errTooMany
		}
	}
	ctx, cancel := context.WithTimeout(r.Context(), reviewTimeout)
	defer cancel()
	// No audience is named: the token must be for the authority itself, as for a kubelet.
	review := &authenticationv1.TokenReview{Spec: authenticationv1.TokenReviewSpec{Token: text}}
	answer, err := a.reviews.Create(ctx, review, metav1.CreateOptions{})
	if err != nil {
		return nil, fmt.Errorf("review a token: %w", err)
	}
	if !answer.Status.Authenticated || answer.Status.User.Username == "" {
		return nil, errUnauthorized
	}
	return userIn(&answer.Status.User), nil
}

func userIn(found *authenticationv1.UserInfo) user.Info {
	info := &user.DefaultInfo{Name: found.Username, UID: found.UID, Groups: found.Groups, Extra: map[string][]string{}}
	for key, values := range found.Extra {
		info.Extra[key] = values
	}
	return info
}

func (a *clientAuthenticator) address(remote string) *clientAddress {
	address := addressOf(remote)
	if known, ok := a.addresses.Get(address); ok {
		return known.(*clientAddress)
	}
	fresh := &clientAddress{flowcontrol.NewTokenBucketPassiveRateLimiter(reviewsPerSecond, reviewBurst), make(chan struct{}, addressReviews)}
	a.addresses.Add(address, fresh)
	return fresh
}

// addressOf returns the address without its port. An IPv6 address is reduced to its /64 network, because one machine may have
// all addresses of that network.
func addressOf(remote string) string {
	parsed, err := netip.ParseAddrPort(remote)
	if err != nil {
		return remote
	}
	ip := parsed.Addr().Unmap()
	if network, err := ip.Prefix(64); err == nil && ip.Is6() {
		return network.String()
	}
	return ip.String()
}
