package auditlog

import (
	"testing"

	auditinternal "k8s.io/apiserver/pkg/apis/audit"
	"k8s.io/apiserver/pkg/audit"
)

// kept is a backend that keeps the URLs of events.
type kept struct {
	audit.Backend
	uris []string
}

func (k *kept) ProcessEvents(events ...*auditinternal.Event) bool {
	for _, event := range events {
		k.uris = append(k.uris, event.RequestURI)
	}
	return true
}

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
		sink := &kept{}
		withoutCommands{sink}.ProcessEvents(event, &auditinternal.Event{RequestURI: "/healthz"})
		if len(sink.uris) != 2 || sink.uris[0] != test.want || sink.uris[1] != "/healthz" || event.RequestURI != test.uri {
			t.Errorf("%s: got %q and left %q", test.uri, sink.uris, event.RequestURI)
		}
	}
}
