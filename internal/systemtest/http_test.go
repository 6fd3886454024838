package systemtest

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
)

// caller makes plain HTTPS requests in one identity.
type caller struct {
	client *http.Client
	url    string
}

// answer is what came back.
type answer struct {
	code   int
	header http.Header
	body   []byte
}

func (a answer) String() string { return fmt.Sprintf("%d %s", a.code, a.body) }

// status reads the body as an error.
func (a answer) status(t testing.TB) metav1.Status {
	t.Helper()
	var s metav1.Status
	if err := json.Unmarshal(a.body, &s); err != nil || s.Kind != "Status" {
		t.Fatalf("body is no Status (%v): %s", err, a)
	}
	return s
}

func (a answer) decode(t testing.TB, into any) {
	t.Helper()
	if err := json.Unmarshal(a.body, into); err != nil {
		t.Fatalf("decode %s: %v", a, err)
	}
}

// callerFor has the identity of the configuration.
func callerFor(t testing.TB, config *rest.Config) *caller {
	t.Helper()
	client, err := rest.HTTPClientFor(config)
	if err != nil {
		t.Fatal(err)
	}
	return &caller{client: client, url: config.Host}
}

// bearer has the identity of the token; none is anonymous.
func bearer(t testing.TB, config *rest.Config, token string) *caller {
	t.Helper()
	return callerFor(t, bearing(config, token))
}

// bearing is the configuration with the token as its only credential.
func bearing(config *rest.Config, token string) *rest.Config {
	config = rest.AnonymousClientConfig(config)
	config.BearerToken = token
	return config
}

// overHTTP1 is a caller over HTTP/1.1 with no credential but the headers it sends, and no limit on their size.
func overHTTP1(t testing.TB, config *rest.Config) *caller {
	t.Helper()
	tlsConfig, err := rest.TLSConfigFor(rest.AnonymousClientConfig(config))
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{
		TLSClientConfig: tlsConfig, MaxIdleConnsPerHost: 1000,
		TLSNextProto: map[string]func(string, *tls.Conn) http.RoundTripper{},
	}
	t.Cleanup(transport.CloseIdleConnections)
	return &caller{client: &http.Client{Transport: transport}, url: config.Host}
}

// try sends a request. headers are names and values in turn; a body without a Content-Type is JSON.
func (c *caller) try(ctx context.Context, method, path string, body []byte, headers ...string) (answer, error) {
	request, err := http.NewRequestWithContext(ctx, method, c.url+path, bytes.NewReader(body))
	if err != nil {
		return answer{}, err
	}
	if body != nil {
		request.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i+1 < len(headers); i += 2 {
		request.Header.Set(headers[i], headers[i+1])
	}
	response, err := c.client.Do(request)
	if err != nil {
		return answer{}, err
	}
	defer func() { _ = response.Body.Close() }()
	text, err := io.ReadAll(response.Body)
	return answer{response.StatusCode, response.Header, text}, err
}

// do is try for a request that must be answered.
func (c *caller) do(t testing.TB, method, path string, body any, headers ...string) answer {
	t.Helper()
	got, err := c.try(t.Context(), method, path, encode(t, body), headers...)
	if err != nil {
		t.Fatalf("%s %s: %v", method, path, err)
	}
	return got
}

func (c *caller) get(t testing.TB, path string, headers ...string) answer {
	t.Helper()
	return c.do(t, http.MethodGet, path, nil, headers...)
}

// must fails the test when the answer is not a success.
func (c *caller) must(t testing.TB, method, path string, body any, headers ...string) answer {
	t.Helper()
	got := c.do(t, method, path, body, headers...)
	if got.code >= 300 {
		t.Fatalf("%s %s: %s", method, path, got)
	}
	return got
}

func encode(t testing.TB, body any) []byte {
	t.Helper()
	switch b := body.(type) {
	case nil:
		return nil
	case []byte:
		return b
	case string:
		return []byte(b)
	}
	data, err := json.Marshal(body)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func jsonInto(data []byte, into any) error { return json.Unmarshal(data, into) }

// judge tells yes from no, and takes anything else for an error.
func judge(got answer, err error, yes, no int) (bool, error) {
	switch {
	case err != nil:
		return false, err
	case got.code != yes && got.code != no:
		return false, fmt.Errorf("%s", got)
	}
	return got.code == yes, nil
}
