package apiserver

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"sync/atomic"
	"time"

	"lanyard.dev/internal/signingkey"
)

const (
	// discoveryPath and jwksPath are where relying parties look, relative to the server's root.
	discoveryPath = "/.well-known/openid-configuration"
	jwksPath      = "/openid/v1/jwks"

	// keySetMaxAge is how long clients may cache the documents. A key in etcd is published for longer before it signs.
	keySetMaxAge = time.Hour
	// staleMaxAge is how long clients may cache them if this replica may not know the latest keys. It goes on to serve the documents,
	// so that relying parties can verify tokens, but nobody keeps its keys for long.
	staleMaxAge = 30 * time.Second
)

// providerMetadata is the subset of the provider metadata that applies to an issuer of service account tokens.
type providerMetadata struct {
	Issuer        string   `json:"issuer"`
	JWKSURI       string   `json:"jwks_uri"`
	ResponseTypes []string `json:"response_types_supported"`
	SubjectTypes  []string `json:"subject_types_supported"`
	Algorithms    []string `json:"id_token_signing_alg_values_supported"`
}

// publisher serves what relying parties need to verify tokens by themselves: the discovery document of OpenID Connect
// Discovery 1.0 and the key set that it points to. They follow the key source: a request that arrives after a change of
// the keys gets the new documents.
type publisher struct {
	issuer, jwksURI string
	keys            signingkey.KeySource
	maxAge          func() time.Duration // how long clients may cache the documents
	latest          atomic.Pointer[documents]
}

// documents are both documents of one key set.
type documents struct {
	keys            *signingkey.Set
	discovery, jwks document
}

// document is a body and its entity tag (RFC 9110 section 8.8.3).
type document struct {
	mediaType string
	body      []byte
	etag      string
}

// newPublisher returns the publisher of an issuer and its keys, which clients may cache for maxAge. jwksURI must be an https URL.
func newPublisher(issuer, jwksURI string, keys signingkey.KeySource, maxAge func() time.Duration) (*publisher, error) {
	u, err := url.Parse(jwksURI)
	if err != nil || u.Scheme != "https" || u.Host == "" {
		return nil, fmt.Errorf("JWKS URI %q is not an https URL", jwksURI)
	}
	p := &publisher{issuer: issuer, jwksURI: jwksURI, keys: keys, maxAge: maxAge}
	_, err = p.current()
	return p, err
}

// current returns the documents of the keys in force. They are encoded once for each key set.
func (p *publisher) current() (*documents, error) {
	keys := p.keys.Current()
	if latest := p.latest.Load(); latest != nil && latest.keys == keys {
		return latest, nil
	}
	discovery, err := json.Marshal(providerMetadata{
		Issuer: p.issuer, JWKSURI: p.jwksURI,
		ResponseTypes: []string{"id_token"}, SubjectTypes: []string{"public"}, Algorithms: algorithms(keys),
	})
	if err != nil {
		return nil, err
	}
	d := &documents{keys: keys, discovery: newDocument("application/json", discovery), jwks: newDocument("application/jwk-set+json", keys.JWKS())}
	p.latest.Store(d)
	return d, nil
}

func newDocument(mediaType string, body []byte) document {
	sum := sha256.Sum256(body)
	return document{mediaType: mediaType, body: body, etag: `"` + base64.RawURLEncoding.EncodeToString(sum[:]) + `"`}
}

func algorithms(keys *signingkey.Set) []string {
	names := []string{} // not null if no key is published
	for _, key := range keys.Published() {
		names = append(names, string(key.Algorithm()))
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// mux is what the handlers are installed on.
type mux interface {
	Handle(path string, handler http.Handler)
}

// install registers both documents.
func (p *publisher) install(m mux) {
	m.Handle(discoveryPath, p.handler(func(d *documents) document { return d.discovery }))
	m.Handle(jwksPath, p.handler(func(d *documents) document { return d.jwks }))
}

func (p *publisher) handler(choose func(*documents) document) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			w.Header().Set("Allow", "GET, HEAD")
			http.Error(w, "method not allowed: use GET", http.StatusMethodNotAllowed)
			return
		}
		all, err := p.current()
		if err != nil {
			http.Error(w, "the document cannot be encoded", http.StatusInternalServerError)
			return
		}
		d := choose(all)
		w.Header().Set("Content-Type", d.mediaType)
		w.Header().Set("Cache-Control", fmt.Sprintf("public, max-age=%d", int(p.maxAge().Seconds())))
		w.Header().Set("ETag", d.etag)
		// ServeContent answers If-None-Match, and sets Content-Length.
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(d.body))
	})
}
