// Package issuer publishes what others need to verify tokens by themselves: the discovery document of OpenID Connect
// Discovery 1.0 and the key set it points to.
package issuer

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"

	"lanyard.dev/internal/signingkey"
)

const (
	// DiscoveryPath and JWKSPath are where relying parties look, relative to the server's root.
	DiscoveryPath = "/.well-known/openid-configuration"
	JWKSPath      = "/openid/v1/jwks"

	cacheControl = "public, max-age=3600"
)

// document is the subset of the provider metadata that a service-account issuer has something to say on.
type document struct {
	Issuer        string   `json:"issuer"`
	JWKSURI       string   `json:"jwks_uri"`
	ResponseTypes []string `json:"response_types_supported"`
	SubjectTypes  []string `json:"subject_types_supported"`
	Algorithms    []string `json:"id_token_signing_alg_values_supported"`
}

// Publisher serves both documents. They are made once; a key set does not change while it serves.
type Publisher struct {
	discovery, jwks []byte
}

// New returns the publisher of an issuer and its keys. jwksURI must be an https URL.
func New(issuer, jwksURI string, keys *signingkey.Set) (*Publisher, error) {
	u, err := url.Parse(jwksURI)
	if err != nil || u.Scheme != "https" || u.Host == "" {
		return nil, fmt.Errorf("JWKS URI %q is not an https URL", jwksURI)
	}
	body, err := json.Marshal(document{
		Issuer: issuer, JWKSURI: jwksURI,
		ResponseTypes: []string{"id_token"}, SubjectTypes: []string{"public"}, Algorithms: algorithms(keys),
	})
	if err != nil {
		return nil, err
	}
	return &Publisher{discovery: body, jwks: keys.JWKS()}, nil
}

func algorithms(keys *signingkey.Set) []string {
	var names []string
	for _, key := range keys.Keys() {
		names = append(names, string(key.Algorithm()))
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// mux is what the handlers are installed on.
type mux interface {
	Handle(path string, handler http.Handler)
}

// Install registers both documents.
func (p *Publisher) Install(m mux) {
	m.Handle(DiscoveryPath, static("application/json", p.discovery))
	m.Handle(JWKSPath, static("application/jwk-set+json", p.jwks))
}

func static(mediaType string, body []byte) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			w.Header().Set("Allow", "GET, HEAD")
			http.Error(w, "method not allowed: use GET", http.StatusMethodNotAllowed)
			return
		}
		w.Header().Set("Content-Type", mediaType)
		w.Header().Set("Content-Length", strconv.Itoa(len(body)))
		w.Header().Set("Cache-Control", cacheControl)
		w.WriteHeader(http.StatusOK)
		if r.Method == http.MethodGet {
			_, _ = w.Write(body)
		}
	})
}
