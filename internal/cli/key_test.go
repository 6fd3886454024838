package cli

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	identity "lanyard.dev/apis/identity/v1alpha1"
)

// keyServer serves a key for each of two algorithms, and notes requests that change keys.
type keyServer struct {
	*httptest.Server
	changes  []string
	conflict bool // whether a key is published already
}

func newKeyServer(t *testing.T) *keyServer {
	t.Helper()
	s := &keyServer{}
	s.Server = httptest.NewServer(s)
	t.Cleanup(s.Close)
	return s
}

func (s *keyServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	const path = "/apis/identity.lanyard.dev/v1alpha1/signingkeys"
	w.Header().Set("Content-Type", "application/json")
	from, live := metav1.NewTime(time.Now().Add(70*time.Minute)), int64(7)
	since := metav1.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC)
	kind := metav1.TypeMeta{APIVersion: "identity.lanyard.dev/v1alpha1", Kind: "SigningKey"}
	var answer any
	switch {
	case r.Method == http.MethodPost && s.conflict:
		w.WriteHeader(http.StatusConflict)
		answer = metav1.Status{
			TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Status"}, Status: metav1.StatusFailure, Code: http.StatusConflict, Reason: metav1.StatusReasonConflict,
			Message: "the key is already published, and signs from later",
		}
	case r.Method == http.MethodPost:
		asked := identity.SigningKey{}
		_ = json.NewDecoder(r.Body).Decode(&asked)
		s.changes = append(s.changes, "publish "+asked.Spec.Algorithm)
		answer = identity.SigningKey{TypeMeta: kind, ObjectMeta: metav1.ObjectMeta{Name: "next"}, Spec: asked.Spec, Status: identity.SigningKeyStatus{SigningFrom: &since}}
	case r.Method == http.MethodDelete:
		s.changes = append(s.changes, "revoke "+strings.TrimPrefix(r.URL.Path, path+"/"))
		answer = metav1.Status{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Status"}, Status: metav1.StatusSuccess}
	default:
		answer = identity.SigningKeyList{
			TypeMeta: metav1.TypeMeta{APIVersion: kind.APIVersion, Kind: "SigningKeyList"},
			Items: []identity.SigningKey{
				{ObjectMeta: metav1.ObjectMeta{Name: "ec", CreationTimestamp: since}, Spec: identity.SigningKeySpec{Algorithm: "ES256"},
					Status: identity.SigningKeyStatus{State: identity.KeySigning, SigningSince: &since, LiveTokens: &live}},
				{ObjectMeta: metav1.ObjectMeta{Name: "next-ec", CreationTimestamp: since}, Spec: identity.SigningKeySpec{Algorithm: "ES256"},
					Status: identity.SigningKeyStatus{State: identity.KeyPublished, SigningFrom: &from}},
				{ObjectMeta: metav1.ObjectMeta{Name: "rsa"}, Spec: identity.SigningKeySpec{Algorithm: "RS256"}, Status: identity.SigningKeyStatus{State: identity.KeySigning}},
			},
		}
	}
	_ = json.NewEncoder(w).Encode(answer)
}

func (s *keyServer) run(t *testing.T, args ...string) result {
	t.Helper()
	return (&issuingServer{Server: s.Server}).run(t, "", append([]string{"key"}, args...)...)
}

// TestKeyList prints keys as a table and as JSON.
func TestKeyList(t *testing.T) {
	t.Parallel()
	s := newKeyServer(t)
	got := s.run(t, "list")
	for _, line := range []string{
		`ID +ALGORITHM +STATE +CREATED +SIGNING SINCE +LIVE TOKENS`,
		`ec +ES256 +Signing +2026-11-28T12:00:00Z +2026-11-28T12:00:00Z +7`,
		`next-ec +ES256 +Published +2026-11-28T12:00:00Z +in (69|70)m +<unknown>`,
		`rsa +RS256 +Signing +<unknown> +<none> +<unknown>`,
	} {
		if got.code != 0 || !regexp.MustCompile(`(?m)^`+line+`$`).MatchString(got.out) {
			t.Errorf("%+v lacks %s", got, line)
		}
	}
	if got := s.run(t, "list", "-o", "json"); got.code != 0 || !strings.Contains(got.out, `"liveTokens": 7`) {
		t.Errorf("json: %+v", got)
	}
}

// TestKeyRotate publishes and revokes keys, of all algorithms and of one.
func TestKeyRotate(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		args     []string
		conflict bool
		code     int
		changes  string
		stdout   string
		stderr   string
	}{
		"all":           {changes: "publish ES256, publish RS256", stdout: "RS256: key next is published, and signs from 2026-11-28T12:00:00Z\n"},
		"one":           {args: []string{"--algorithm", "RS256"}, changes: "publish RS256"},
		"waiting":       {args: []string{"--algorithm", "ES256"}, conflict: true, stdout: "ES256: the key is already published, and signs from later\n"},
		"revoke":        {args: []string{"--revoke", "--yes"}, changes: "revoke ec, revoke rsa", stdout: "ES256: key ec is revoked, and a new key signs\n"},
		"revoke one":    {args: []string{"--revoke", "--yes", "--algorithm", "ES256"}, changes: "revoke ec"},
		"nobody to ask": {args: []string{"--revoke"}, code: exitUsage, stderr: "give --yes to revoke them"},
		"no such key":   {args: []string{"--algorithm", "ES512"}, code: exitFailure, stderr: "no key signs with ES512"},
		"no algorithm":  {args: []string{"--algorithm", "HS256"}, code: exitUsage, stderr: "--algorithm must be one of [ES256 ES384 ES512 RS256]"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newKeyServer(t)
			s.conflict = test.conflict
			got := s.run(t, append([]string{"rotate"}, test.args...)...)
			if got.code != test.code || strings.Join(s.changes, ", ") != test.changes || !strings.Contains(got.out, test.stdout) || !strings.Contains(got.errOut, test.stderr) {
				t.Errorf("%+v with the changes %q", got, s.changes)
			}
		})
	}
}
