package auditlog

import (
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	auditinternal "k8s.io/apiserver/pkg/apis/audit"
	"k8s.io/apiserver/pkg/audit"
	"k8s.io/apiserver/pkg/authorization/authorizer"

	"lanyard.dev/internal/apiserver/api"
)

func openWith(t *testing.T, policy string) (log *Log, path string) {
	t.Helper()
	dir := t.TempDir()
	o := Options{LogPath: filepath.Join(dir, "audit.log")}
	if policy != "" {
		o.PolicyFile = filepath.Join(dir, "policy.json")
		if err := os.WriteFile(o.PolicyFile, []byte(policy), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	log, err := Open(o, api.All().Credentials())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = log.Close() })
	return log, o.LogPath
}

// TestNoPolicyLogsBodiesWithCredentials checks the level of requests with credentials in a policy that logs bodies.
func TestNoPolicyLogsBodiesWithCredentials(t *testing.T) {
	t.Parallel()
	log, _ := openWith(t, `{"apiVersion":"audit.k8s.io/v1","kind":"Policy","rules":[{"level":"RequestResponse"}]}`)
	for resource, want := range map[string]auditinternal.Level{
		"secrets": auditinternal.LevelMetadata, "tokenreviews": auditinternal.LevelMetadata,
		"serviceaccounts/token": auditinternal.LevelMetadata,
		"serviceaccounts":       auditinternal.LevelRequestResponse, "configmaps": auditinternal.LevelRequestResponse,
	} {
		name, sub, _ := strings.Cut(resource, "/")
		got := log.Policy.EvaluatePolicyRule(authorizer.AttributesRecord{Verb: "create", Resource: name, Subresource: sub, ResourceRequest: true})
		if got.Level != want {
			t.Errorf("%s: level %s, want %s", resource, got.Level, want)
		}
	}
}

// TestEventsWithoutARefusal checks that events without a message, or without an object, are logged unchanged.
func TestEventsWithoutARefusal(t *testing.T) {
	t.Parallel()
	secret := &auditinternal.ObjectReference{Resource: "secrets"}
	for name, event := range map[string]*auditinternal.Event{
		"no object":   {AuditID: "1", ResponseStatus: &metav1.Status{Code: http.StatusBadRequest, Message: "quote"}},
		"no response": {AuditID: "2", ObjectRef: secret},
		"neither":     {AuditID: "3"},
		"no message":  {AuditID: "4", ObjectRef: secret, ResponseStatus: &metav1.Status{Code: http.StatusBadRequest, Reason: "Why"}},
	} {
		if (hideMessages{credentials: api.All().Credentials()}).mayQuote(event) {
			t.Errorf("%s: it may quote a credential", name)
		}
		log, path := openWith(t, "")
		event.Level = auditinternal.LevelMetadata
		log.Backend.ProcessEvents(event)
		line, err := os.ReadFile(path)
		if err != nil || !strings.Contains(string(line), `"auditID":"`+string(event.AuditID)+`"`) || strings.Contains(string(line), "not logged") {
			t.Errorf("%s: %v: %s", name, err, line)
		}
	}
}

// TestRefusalsDoNotQuoteSecrets checks which messages of refusals are logged.
func TestRefusalsDoNotQuoteSecrets(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		resource, sub string
		code          int32
		quoted        bool
	}{
		{"secrets", "", http.StatusBadRequest, false},
		{"secrets", "", http.StatusUnprocessableEntity, false},
		{"secrets", "", http.StatusInternalServerError, false},
		{"secrets", "", http.StatusNotFound, true},
		{"secrets", "", http.StatusForbidden, true},
		{"tokenreviews", "", http.StatusBadRequest, false},
		{"serviceaccounts", "token", http.StatusUnprocessableEntity, false},
		{"serviceaccounts", "", http.StatusUnprocessableEntity, true},
		{"configmaps", "", http.StatusUnprocessableEntity, true},
	} {
		log, path := openWith(t, "")
		event := &auditinternal.Event{
			Level: auditinternal.LevelMetadata, ObjectRef: &auditinternal.ObjectReference{Resource: tt.resource, Subresource: tt.sub},
			ResponseStatus: &metav1.Status{Code: tt.code, Reason: "Why", Message: "quote", Details: &metav1.StatusDetails{Causes: []metav1.StatusCause{{Message: "quote"}}}},
		}
		log.Backend.ProcessEvents(event)
		line, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		var logged struct{ ResponseStatus metav1.Status }
		if err := json.Unmarshal(line, &logged); err != nil || logged.ResponseStatus.Code != tt.code || logged.ResponseStatus.Reason != "Why" {
			t.Errorf("%+v: %v: %s", tt, err, line)
		}
		if got := strings.Contains(string(line), "quote\""); got != tt.quoted {
			t.Errorf("%+v: quoted is %t: %s", tt, got, line)
		}
		if event.ResponseStatus.Message != "quote" || event.ResponseStatus.Details == nil {
			t.Errorf("%+v: the event itself was changed", tt)
		}
	}
}

// uriRecorder is a backend that records the URLs of events.
type uriRecorder struct {
	audit.Backend
	uris []string
}

func (r *uriRecorder) ProcessEvents(events ...*auditinternal.Event) bool {
	for _, event := range events {
		r.uris = append(r.uris, event.RequestURI)
	}
	return true
}

// TestCommandsAreNotLogged checks the URLs that are logged of requests to run a command.
func TestCommandsAreNotLogged(t *testing.T) {
	t.Parallel()
	const exec = "/api/v1/namespaces/ns/pods/p/exec"
	for _, test := range []struct{ subresource, uri, want string }{
		{"exec", exec + "?command=sh&command=-c&command=secret&container=c&stdin=true", exec + "?command=withheld&container=c&stdin=true"},
		{"exec", exec + "?comm%61nd=secret", exec + "?command=withheld"},
		{"exec", exec + "?command=secret;x&container=c", exec + "?withheld"},
		{"exec", exec, exec},
		{"exec", "secret", "withheld"},
		{"log", "/log?command=x", "/log?command=x"},
		{"", "/api/v1/namespaces/ns/pods/p?command=x", "/api/v1/namespaces/ns/pods/p?command=x"},
	} {
		event := &auditinternal.Event{RequestURI: test.uri, ObjectRef: &auditinternal.ObjectReference{Resource: "pods", Subresource: test.subresource}}
		sink := &uriRecorder{}
		hideCommands{sink}.ProcessEvents(event, &auditinternal.Event{RequestURI: "/healthz"})
		if len(sink.uris) != 2 || sink.uris[0] != test.want || sink.uris[1] != "/healthz" || event.RequestURI != test.uri {
			t.Errorf("%s: logged %q, and the event itself has %q", test.uri, sink.uris, event.RequestURI)
		}
	}
}
