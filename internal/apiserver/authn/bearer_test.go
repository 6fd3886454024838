package authn

import (
	"encoding/base64"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"lanyard.dev/internal/token"
)

// FuzzBearerToken checks that a token is read only without an error, and that it can be removed.
func FuzzBearerToken(f *testing.F) {
	f.Add("Bearer x", "")
	f.Add("", "v1, "+protocolPrefix+"Z29vZA")
	f.Fuzz(func(t *testing.T, authorization, protocol string) {
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.Header = http.Header{"Connection": {"Upgrade"}, "Upgrade": {"websocket"}, protocolHeader: {protocol}}
		if authorization != "" {
			r.Header.Set(authorizationHeader, authorization)
		}
		text, err := bearerToken(r)
		if err != nil && text != "" || err == nil && text == "" && authorization != "" || strings.ContainsAny(text, " \t\r\n") && authorization == "" {
			t.Fatalf("%q, %q: token %q, %v", authorization, protocol, text, err)
		}
		if _, names := token.Names(text); len(names) > token.MaxSize {
			t.Fatal("an id is longer than a token")
		}
		removeTokenProtocol(r.Header)
		if hasTokenProtocol(r.Header) && strings.HasPrefix(strings.TrimSpace(protocol), protocolPrefix) {
			t.Fatalf("there is still a token in %q", r.Header[protocolHeader])
		}
	})
}

// TestTokenCharacters checks which characters a token may contain.
func TestTokenCharacters(t *testing.T) {
	t.Parallel()
	const tokens = "!~" // the first and the last character that a token may contain
	for text, want := range map[string]bool{tokens: true, "a b": false, "a\tb": false, "a\x7f": false, "a\u0080": false, "\u00f6": false} {
		got, err := authorizationToken([]string{"Bearer " + text})
		if (err == nil) != want || want && got != text {
			t.Errorf("header with %q: %q, %v", text, got, err)
		}
		protocol := http.Header{protocolHeader: {"v1, " + protocolPrefix + base64.RawURLEncoding.EncodeToString([]byte(text))}}
		got, err = protocolToken(protocol)
		if (err == nil) != want || want && got != text {
			t.Errorf("subprotocol with %q: %q, %v", text, got, err)
		}
	}
}

// TestRemoveTokenProtocol checks that only the subprotocol with the token is removed.
func TestRemoveTokenProtocol(t *testing.T) {
	t.Parallel()
	secret := protocolPrefix + "Z29vZA"
	for _, tt := range []struct{ sent, left []string }{
		{[]string{"v1"}, []string{"v1"}},
		{[]string{"v1, " + secret, "v2"}, []string{"v1, v2"}},
		{[]string{secret}, nil},
		{nil, nil},
	} {
		h := http.Header{}
		for _, line := range tt.sent {
			h.Add(protocolHeader, line)
		}
		removeTokenProtocol(h)
		if got := h[protocolHeader]; !slices.Equal(got, tt.left) {
			t.Errorf("of %q %q are left, want %q", tt.sent, got, tt.left)
		}
	}
}
