package main

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	"github.com/rogpeppe/go-internal/testscript"
)

// relyingParty implements `relying-party AUDIENCE TOKENFILE`. It is a service that knows nothing but the issuer's published
// documents, and verifies the token with go-jose: an algorithm that the discovery document names, a signature by a key of the
// key set, the issuer, the times and the audience. It prints the algorithm of the token, and of each key in the key set.
func relyingParty(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 2 {
		ts.Fatalf("usage: relying-party AUDIENCE TOKENFILE")
	}
	err := verifyAsRelyingParty(ts, args[0], strings.TrimSpace(ts.ReadFile(args[1])))
	switch {
	case err != nil && !neg:
		ts.Fatalf("%v", err)
	case err == nil && neg:
		ts.Fatalf("the token was accepted")
	case err != nil:
		fmt.Fprintln(ts.Stderr(), err)
	}
}

func verifyAsRelyingParty(ts *testscript.TestScript, audience, text string) error {
	var provider struct {
		Issuer     string                    `json:"issuer"`
		Algorithms []jose.SignatureAlgorithm `json:"id_token_signing_alg_values_supported"`
	}
	var keys jose.JSONWebKeySet
	ts.Check(fetchPublished(ts, "/.well-known/openid-configuration", &provider))
	ts.Check(fetchPublished(ts, "/openid/v1/jwks", &keys))
	parsed, err := jwt.ParseSigned(text, provider.Algorithms)
	if err != nil {
		return err
	}
	for _, header := range parsed.Headers {
		fmt.Fprintln(ts.Stdout(), "token:", header.Algorithm)
		if found := keys.Key(header.KeyID); len(found) != 1 || found[0].Algorithm != header.Algorithm || found[0].Use != "sig" {
			return fmt.Errorf("the key set has %d keys with the id and algorithm of the token", len(found))
		}
	}
	for _, key := range keys.Keys {
		fmt.Fprintln(ts.Stdout(), "key:", key.Algorithm)
	}
	var claims jwt.Claims
	if err := parsed.Claims(&keys, &claims); err != nil {
		return err
	}
	return claims.Validate(jwt.Expected{Issuer: provider.Issuer, AnyAudience: jwt.Audience{audience}, Time: time.Now()})
}

// fetchPublished decodes a document that the authority publishes, without a credential.
func fetchPublished(ts *testscript.TestScript, path string, into any) error {
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM([]byte(ts.ReadFile(ts.Getenv("CA"))))
	client := &http.Client{Timeout: patience, Transport: &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}, DisableKeepAlives: true,
	}}
	response, err := client.Get(ts.Getenv("URL") + path)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil || response.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s: %w", path, response.Status, err)
	}
	return json.Unmarshal(body, into)
}
