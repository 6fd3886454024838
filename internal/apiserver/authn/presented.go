package authn

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"time"

	utilerrors "k8s.io/apimachinery/pkg/util/errors"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/utils/clock"
)

// Presented is what one request presented to identify its caller. It authenticates the caller again, by the same rules as
// the authenticator of requests, and without its limits, log lines and metrics. It holds the credential itself, so it must
// not outlive the request.
type Presented struct {
	id        [sha256.Size]byte
	callers   authenticator.Request
	audiences authenticator.Audiences

	// request has what was presented. Its context is made from asked, the context of the last call of User.
	request *http.Request
	asked   context.Context
}

// Presents returns a function that returns the credential of a request, which was not authenticated yet. c is the
// configuration of the authenticator of requests; its guard is not used, and no use of a credential is noted. The audiences are those of the API server.
func Presents(c RequestConfig, audiences authenticator.Audiences, clock clock.PassiveClock) func(*http.Request) *Presented {
	c.Credentials = withoutUses{c.Credentials}
	tokensOnly := c.callers(nil, nil)
	return func(r *http.Request) *Presented {
		presented := presentedBy(r)
		callers := tokensOnly
		if c.CA != nil && presented.TLS != nil {
			callers = c.callers(&certificate{ca: c.CA, presented: presented.TLS.PeerCertificates, convert: certificateUser(c.Nodes).User, clock: clock}, nil)
		}
		return &Presented{id: idOf(presented), request: presented, callers: callers, audiences: audiences}
	}
}

// presentedBy returns a request with what the authenticators read of another one.
func presentedBy(r *http.Request) *http.Request {
	presented := &http.Request{Method: r.Method, URL: &url.URL{Path: r.URL.Path}, Header: http.Header{}, RemoteAddr: r.RemoteAddr}
	names := []string{authorizationHeader}
	if hasTokenProtocol(r.Header) {
		names = append(names, protocolHeader, "Connection", "Upgrade")
	}
	for _, name := range names {
		if values := r.Header[name]; len(values) > 0 {
			presented.Header[name] = values
		}
	}
	if r.TLS != nil && len(r.TLS.PeerCertificates) > 0 {
		presented.TLS = &tls.ConnectionState{PeerCertificates: r.TLS.PeerCertificates}
	}
	return presented
}

// idOf returns a digest of what a request presents. A request without a credential is identified by its path, because the
// configuration may allow such requests on some paths only.
func idOf(r *http.Request) [sha256.Size]byte {
	h := sha256.New()
	add := func(b []byte) {
		_, _ = h.Write(binary.BigEndian.AppendUint64(nil, uint64(len(b))))
		_, _ = h.Write(b)
	}
	for _, name := range []string{authorizationHeader, protocolHeader, "Connection", "Upgrade"} {
		for _, value := range r.Header[name] {
			add([]byte(name))
			add([]byte(value))
		}
	}
	if r.TLS != nil {
		for _, c := range r.TLS.PeerCertificates {
			add(c.Raw)
		}
	}
	if len(r.Header) == 0 && r.TLS == nil {
		add([]byte(r.URL.Path))
	}
	return [sha256.Size]byte(h.Sum(nil))
}

// withoutUses notes no uses: a check of an open watch or session is none.
type withoutUses struct{ Credentials }

// Used implements Credentials.
func (withoutUses) Used(_, _ string) {}

// ID returns a digest that is the same for requests with the same credential.
func (c *Presented) ID() [sha256.Size]byte { return c.id }

// User returns the user that the credential identifies now. The error wraps an outage.Error if that cannot be decided now. If
// ctx has ended, it answers from memory or returns an error. It must not be called by two goroutines at a time.
func (c *Presented) User(ctx context.Context) (user.Info, error) {
	if c.asked != ctx {
		c.asked, c.request = ctx, c.request.WithContext(authenticator.WithAudiences(ctx, c.audiences))
	}
	response, ok, err := c.callers.AuthenticateRequest(c.request)
	switch {
	case err != nil:
		return nil, err
	case !ok:
		return nil, errNoCredential
	}
	return response.User, nil
}

// certificate authenticates a client certificate again and again. Verifying its signatures takes far longer than anything
// else, and their result is the same until the accepted CAs change or one of the certificates expires.
type certificate struct {
	ca        ClientCA
	presented []*x509.Certificate
	convert   func(chain []*x509.Certificate) (*authenticator.Response, bool, error)
	clock     clock.PassiveClock

	// chains is the result of the last verification, by roots. It holds until the end of expires.
	chains  [][]*x509.Certificate
	roots   *x509.CertPool
	expires time.Time
}

var errNoCA = errors.New("no client certificate is accepted now")

// AuthenticateRequest implements authenticator.Request.
func (c *certificate) AuthenticateRequest(*http.Request) (*authenticator.Response, bool, error) {
	if err := c.verify(); err != nil {
		return nil, false, fmt.Errorf("verify the client certificate: %w", err)
	}
	var faults []error
	for _, chain := range c.chains {
		response, ok, err := c.convert(chain)
		if ok && err == nil {
			return response, true, nil
		}
		faults = append(faults, err)
	}
	return nil, false, utilerrors.NewAggregate(faults)
}

// verify verifies the certificate, unless the result of the last time still holds.
func (c *certificate) verify() error {
	options, ok := c.ca()
	if !ok {
		return errNoCA
	}
	now := c.clock.Now()
	if c.chains != nil && options.Roots == c.roots && !now.After(c.expires) {
		return nil
	}
	c.chains, options.CurrentTime = nil, now
	if options.Intermediates == nil && len(c.presented) > 1 {
		options.Intermediates = x509.NewCertPool()
		for _, intermediate := range c.presented[1:] {
			options.Intermediates.AddCert(intermediate)
		}
	}
	chains, err := c.presented[0].Verify(options)
	if err != nil {
		return err
	}
	c.chains, c.roots, c.expires = chains, options.Roots, c.presented[0].NotAfter
	for _, chain := range chains {
		for _, one := range chain {
			if one.NotAfter.Before(c.expires) {
				c.expires = one.NotAfter
			}
		}
	}
	return nil
}
