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

// TokenReviews asks the authority whose token it is.
type TokenReviews interface {
	Create(ctx context.Context, review *authenticationv1.TokenReview, opts metav1.CreateOptions) (*authenticationv1.TokenReview, error)
}

var (
	// errUnauthorized says that a request has no credential, or one that does not hold.
	errUnauthorized = errors.New("unauthorized")
	// errTooMany says that reviews of tokens are asked for faster than this node asks the authority.
	errTooMany = errors.New("too many requests")
)

// Whoever reaches the node can show it tokens, and each costs the authority a review. These bound how many: in a second and at
// once from one address, and at once in all.
const (
	reviewsPerSecond, reviewBurst = 20, 40
	reviewsAtOnceOfOne            = 4
	reviewsAtOnce                 = 16
	// addresses is how many are remembered, those that asked last.
	addresses = 4096
)

// identifier knows users by client certificates and bearer tokens. It remembers no answer: a token that the authority refuses
// from now on is refused here.
type identifier struct {
	certificates authenticator.Request
	reviews      TokenReviews
	sources      *lru.Cache // of *source by address
	underWay     chan struct{}
}

// source is what is known of one address.
type source struct {
	rate     flowcontrol.PassiveRateLimiter
	underWay chan struct{}
}

func newIdentifier(certificates authenticator.Request, reviews TokenReviews) *identifier {
	return &identifier{certificates, reviews, lru.New(addresses), make(chan struct{}, reviewsAtOnce)}
}

// identify returns who sent the request: errUnauthorized if that is not known, errTooMany, or that the authority does not answer.
// A credential that does not hold is not passed over for another one.
func (i *identifier) identify(r *http.Request) (user.Info, error) {
	response, ok, err := i.certificates.AuthenticateRequest(r)
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
	// It is not passed on with the session, to the container runtime.
	r.Header.Del("Authorization")
	return i.review(r, text)
}

// bearer returns the request's token, false if it has none or one that cannot be a token.
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

func (i *identifier) review(r *http.Request, text string) (user.Info, error) {
	from := i.source(r.RemoteAddr)
	if !from.rate.TryAccept() {
		return nil, errTooMany
	}
	// Where the authority is slow, one address must not take every place.
	for _, places := range []chan struct{}{from.underWay, i.underWay} {
		select {
		case places <- struct{}{}:
			defer func() { <-places }()
		default:
			return nil, errTooMany
		}
	}
	ctx, cancel := context.WithTimeout(r.Context(), reviewTimeout)
	defer cancel()
	// No audience is named: the token must be for the authority itself, as for a kubelet.
	review := &authenticationv1.TokenReview{Spec: authenticationv1.TokenReviewSpec{Token: text}}
	answer, err := i.reviews.Create(ctx, review, metav1.CreateOptions{})
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

func (i *identifier) source(remote string) *source {
	address := addressOf(remote)
	if known, ok := i.sources.Get(address); ok {
		return known.(*source)
	}
	fresh := &source{flowcontrol.NewTokenBucketPassiveRateLimiter(reviewsPerSecond, reviewBurst), make(chan struct{}, reviewsAtOnceOfOne)}
	i.sources.Add(address, fresh)
	return fresh
}

// addressOf leaves out the port. The addresses of one IPv6 network of 64 bits count as one, because one machine may have all
// of them.
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
