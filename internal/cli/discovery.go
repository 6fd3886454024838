package cli

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"lanyard.dev/internal/files"
	"lanyard.dev/internal/hint"
	"lanyard.dev/internal/signingkey"
)

const (
	// maxDocument is the size limit of a discovery document or key set, in bytes.
	maxDocument = 1 << 20

	discoveryTimeout = 10 * time.Second
	maxRedirects     = 3
)

// discovery fetches the keys of an issuer by OpenID Connect Discovery 1.0.
type discovery struct{ client *http.Client }

// newDiscovery returns a discovery that trusts roots, or the certificates of the system if roots is nil.
func newDiscovery(roots *x509.CertPool) *discovery {
	return &discovery{client: &http.Client{
		Timeout: discoveryTimeout,
		Transport: &http.Transport{
			Proxy:             http.ProxyFromEnvironment,
			TLSClientConfig:   &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12},
			DisableKeepAlives: true,
		},
		CheckRedirect: sameHost,
	}}
}

// sameHost refuses redirects to other hosts. Otherwise an open redirect on the issuer's host could select the keys that are
// trusted.
func sameHost(next *http.Request, via []*http.Request) error {
	first := via[0].URL
	switch {
	case len(via) > maxRedirects:
		return errors.New("redirected too often")
	case next.URL.Scheme != "https" || next.URL.Host != first.Host:
		return fmt.Errorf("redirected to another host, %s", next.URL.Redacted())
	}
	return nil
}

func validateHTTPS(name, text string) error {
	u, err := url.Parse(text)
	switch {
	case err != nil:
		return fmt.Errorf("%s is not a URL: %q", name, text)
	case u.Scheme != "https" || u.Host == "":
		return fmt.Errorf("%s must be an https:// URL, not %q", name, text)
	case u.RawQuery != "" || u.Fragment != "" || u.User != nil:
		return fmt.Errorf("%s must have no user, query or fragment: %q", name, u.Redacted())
	}
	return nil
}

// document is the used part of an issuer's metadata.
type document struct {
	Issuer  string `json:"issuer"`
	JWKSURI string `json:"jwks_uri"`
}

func (d *discovery) keys(ctx context.Context, issuer string) (*signingkey.Set, error) {
	ctx, cancel := context.WithTimeout(ctx, discoveryTimeout)
	defer cancel()
	metadata, err := d.metadata(ctx, issuer)
	if err != nil {
		return nil, err
	}
	data, err := d.get(ctx, metadata.JWKSURI)
	if err != nil {
		return nil, err
	}
	keys, err := signingkey.ParseJWKS(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", metadata.JWKSURI, err)
	}
	return keys, nil
}

func (d *discovery) metadata(ctx context.Context, issuer string) (*document, error) {
	address := strings.TrimSuffix(issuer, "/") + "/.well-known/openid-configuration"
	data, err := d.get(ctx, address)
	if err != nil {
		return nil, err
	}
	var metadata document
	if err := json.Unmarshal(data, &metadata); err != nil {
		return nil, fmt.Errorf("%s is not a discovery document", address)
	}
	if metadata.Issuer != issuer {
		return nil, hint.New(fmt.Errorf("%s is the document of another issuer, %q", address, metadata.Issuer),
			"give the issuer exactly as in the document, if you trust that name")
	}
	if err := validateHTTPS("jwks_uri in "+address, metadata.JWKSURI); err != nil {
		return nil, err
	}
	return &metadata, nil
}

func (d *discovery) get(ctx context.Context, address string) ([]byte, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return nil, fmt.Errorf("fetch %s: %w", address, err)
	}
	response, err := d.client.Do(request)
	if err != nil {
		return nil, explainFetch(address, err)
	}
	defer response.Body.Close()
	switch response.StatusCode {
	case http.StatusOK:
	case http.StatusUnauthorized, http.StatusForbidden:
		return nil, hint.New(fmt.Errorf("fetch %s: the issuer answered %q", address, response.Status),
			"the issuer requires authentication: save its keys with lanyard kubectl get --raw /openid/v1/jwks and use --jwks")
	default:
		return nil, hint.New(fmt.Errorf("fetch %s: the issuer answered %q", address, response.Status), "check the URL")
	}
	data, err := files.ReadAll(response.Body, "the answer", maxDocument)
	if err != nil {
		return nil, explainFetch(address, err)
	}
	return data, nil
}

func explainFetch(address string, err error) error {
	if inner := (*url.Error)(nil); errors.As(err, &inner) && !inner.Timeout() {
		err = inner.Err
	}
	next := "check the URL, and whether this machine can reach it"
	if unknown := (x509.UnknownAuthorityError{}); errors.As(err, &unknown) {
		next = "give the issuer's CA with --certificate-authority"
	}
	return hint.New(fmt.Errorf("fetch %s: %w", address, err), next)
}
