package issuer_test

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"testing"

	"github.com/go-jose/go-jose/v4"
	"github.com/google/go-cmp/cmp"

	"lanyard.dev/internal/apiserver/issuer"
	"lanyard.dev/internal/signingkey"
)

const (
	issuerURL = "https://lanyard.example"
	jwksURL   = "https://keys.example/jwks"
)

func keys(t *testing.T) *signingkey.Set {
	t.Helper()
	signer, err := signingkey.Generate(signingkey.ES256)
	if err != nil {
		t.Fatal(err)
	}
	other, err := signingkey.Generate(signingkey.ES256)
	if err != nil {
		t.Fatal(err)
	}
	set, err := signingkey.NewSet(signer, other.Public())
	if err != nil {
		t.Fatal(err)
	}
	return set
}

func serve(t *testing.T, set *signingkey.Set) *httptest.Server {
	t.Helper()
	publisher, err := issuer.New(issuerURL, jwksURL, set)
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	publisher.Install(mux)
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	return server
}

func request(t *testing.T, method, url string) (*http.Response, []byte) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, url, bytes.NewReader(nil))
	if err != nil {
		t.Fatal(err)
	}
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response, body
}

func TestDiscovery(t *testing.T) {
	t.Parallel()
	_, body := request(t, http.MethodGet, serve(t, keys(t)).URL+"/.well-known/openid-configuration")
	var got map[string]any
	if err := json.Unmarshal(body, &got); err != nil {
		t.Fatal(err)
	}
	// Two keys of one algorithm: it is named once.
	want := map[string]any{
		"issuer": issuerURL, "jwks_uri": jwksURL, "response_types_supported": []any{"id_token"},
		"subject_types_supported": []any{"public"}, "id_token_signing_alg_values_supported": []any{"ES256"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestKeySet(t *testing.T) {
	t.Parallel()
	set := keys(t)
	_, body := request(t, http.MethodGet, serve(t, set).URL+"/openid/v1/jwks")
	var published jose.JSONWebKeySet
	if err := json.Unmarshal(body, &published); err != nil {
		t.Fatal(err)
	}
	var got, want []string
	for _, key := range published.Keys {
		if !key.IsPublic() || !key.Valid() {
			t.Errorf("key %s is not a valid public key", key.KeyID)
		}
		got = append(got, key.KeyID)
	}
	for _, key := range set.Keys() {
		want = append(want, key.ID())
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("key ids %q, want %q", got, want)
	}
	if bytes.Contains(body, []byte(`"d"`)) {
		t.Error("the key set holds a private part")
	}
}

func TestHeaders(t *testing.T) {
	t.Parallel()
	server := serve(t, keys(t))
	for path, mediaType := range map[string]string{
		issuer.DiscoveryPath: "application/json", issuer.JWKSPath: "application/jwk-set+json",
	} {
		get, body := request(t, http.MethodGet, server.URL+path)
		head, none := request(t, http.MethodHead, server.URL+path)
		for method, response := range map[string]*http.Response{"GET": get, "HEAD": head} {
			want := map[string]string{
				"Content-Type": mediaType, "Cache-Control": "public, max-age=3600", "Content-Length": strconv.Itoa(len(body)),
			}
			for name, value := range want {
				if got := response.Header.Get(name); got != value {
					t.Errorf("%s %s: %s is %q, want %q", method, path, name, got, value)
				}
			}
			if response.StatusCode != http.StatusOK {
				t.Errorf("%s %s: status %d", method, path, response.StatusCode)
			}
		}
		if len(none) > 0 {
			t.Errorf("HEAD %s has a body", path)
		}
		for _, method := range []string{http.MethodPost, http.MethodPut, http.MethodDelete, http.MethodPatch} {
			response, _ := request(t, method, server.URL+path)
			if response.StatusCode != http.StatusMethodNotAllowed || response.Header.Get("Allow") != "GET, HEAD" {
				t.Errorf("%s %s: status %d, Allow %q", method, path, response.StatusCode, response.Header.Get("Allow"))
			}
			if response.Header.Get("Cache-Control") == "public, max-age=3600" {
				t.Errorf("%s %s: the refusal may be cached", method, path)
			}
		}
	}
}

func TestKeySetURI(t *testing.T) {
	t.Parallel()
	set := keys(t)
	for _, bad := range []string{"", "http://keys.example/jwks", "https://", "keys.example/jwks", "https:/jwks", "://"} {
		if _, err := issuer.New(issuerURL, bad, set); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
}
