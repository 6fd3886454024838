package auditlog

import (
	"bytes"
	"errors"
	"testing"
	"time"

	authnv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	auditinternal "k8s.io/apiserver/pkg/apis/audit"
)

// fullEvent returns an event with every field of an ordinary event, in each of which is text.
func fullEvent(text string) *auditinternal.Event {
	when := metav1.NewMicroTime(time.Date(2026, 1, 2, 3, 4, 5, 6000, time.FixedZone("", 3600)))
	return &auditinternal.Event{
		Level: auditinternal.LevelMetadata, AuditID: types.UID(text), Stage: auditinternal.Stage(text), RequestURI: text, Verb: text,
		User: authnv1.UserInfo{
			Username: text, UID: text, Groups: []string{text, "b"},
			Extra: map[string]authnv1.ExtraValue{text: {text, "c"}, "empty": {}, "none": nil},
		},
		SourceIPs: []string{"10.0.0.1", text}, UserAgent: text,
		ObjectRef: &auditinternal.ObjectReference{
			Resource: text, Namespace: text, Name: text, UID: types.UID(text), APIGroup: text, APIVersion: text, ResourceVersion: text, Subresource: text,
		},
		ResponseStatus:           &metav1.Status{Status: text, Message: text, Reason: metav1.StatusReason(text), Code: 418},
		RequestReceivedTimestamp: when, StageTimestamp: when,
		Annotations: map[string]string{text: text, "a": text, "z": ""},
	}
}

// compare writes an event with lines and with the library's backend, and compares the results.
func compare(t *testing.T, e *auditinternal.Event) {
	t.Helper()
	var got, want bytes.Buffer
	ours := newLines(&got)
	theirs := newLines(&want).Backend
	if !ours.ProcessEvents(e) || !theirs.ProcessEvents(e) {
		t.Fatal("an event is not written")
	}
	if got.String() != want.String() {
		t.Errorf("got  %swant %s", got.String(), want.String())
	}
}

// TestEncoding checks that each line is the one that the library writes.
func TestEncoding(t *testing.T) {
	t.Parallel()
	with := func(change func(*auditinternal.Event)) *auditinternal.Event {
		e := fullEvent("x")
		change(e)
		return e
	}
	for name, e := range map[string]*auditinternal.Event{
		"full":              fullEvent("x"),
		"empty":             {},
		"text":              fullEvent("a\"\\<>&\x00\n\x7f\u2028é\xff"),
		"no fields":         {ObjectRef: &auditinternal.ObjectReference{}, ResponseStatus: &metav1.Status{}, User: authnv1.UserInfo{Groups: []string{}}},
		"groups only":       {User: authnv1.UserInfo{Groups: []string{"g"}}},
		"extra only":        {User: authnv1.UserInfo{Extra: map[string]authnv1.ExtraValue{"b": {"1"}, "a": {"2"}}}},
		"negative code":     {ResponseStatus: &metav1.Status{Code: -1}},
		"impersonated user": with(func(e *auditinternal.Event) { e.ImpersonatedUser = &authnv1.UserInfo{Username: "y"} }),
		"constraint": with(func(e *auditinternal.Event) {
			e.AuthenticationMetadata = &auditinternal.AuthenticationMetadata{ImpersonationConstraint: "c"}
		}),
		"request object": with(func(e *auditinternal.Event) {
			e.RequestObject = &runtime.Unknown{Raw: []byte(`{"a":1}`), ContentType: "application/json"}
		}),
		"response object": with(func(e *auditinternal.Event) {
			e.ResponseObject = &runtime.Unknown{Raw: []byte(`{"a":1}`), ContentType: "application/json"}
		}),
		"status details":  with(func(e *auditinternal.Event) { e.ResponseStatus.Details = &metav1.StatusDetails{Name: "n"} }),
		"status kind":     with(func(e *auditinternal.Event) { e.ResponseStatus.Kind = "Status" }),
		"status metadata": with(func(e *auditinternal.Event) { e.ResponseStatus.ResourceVersion = "1" }),
		"late year":       with(func(e *auditinternal.Event) { e.StageTimestamp.Time = e.StageTimestamp.AddDate(20000, 0, 0) }),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			compare(t, e)
		})
	}
}

func FuzzEncoding(f *testing.F) {
	for _, text := range []string{"", "x", `"`, "é", "\xff", "</script>"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) { compare(t, fullEvent(text)) })
}

// faultyWriter cannot be written.
type faultyWriter struct{}

func (faultyWriter) Write([]byte) (int, error) { return 0, errors.New("no space left") }

// TestUnwritten checks that an event that cannot be written is reported, and the next one is tried.
func TestUnwritten(t *testing.T) {
	t.Parallel()
	if newLines(faultyWriter{}).ProcessEvents(fullEvent("x"), &auditinternal.Event{RequestObject: &runtime.Unknown{}}) {
		t.Error("events that cannot be written count as written")
	}
}

func BenchmarkEvent(b *testing.B) {
	e := fullEvent("text")
	var out bytes.Buffer
	for name, backend := range map[string]interface {
		ProcessEvents(...*auditinternal.Event) bool
	}{"lines": newLines(&out), "library": newLines(&out).Backend} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				out.Reset()
				backend.ProcessEvents(e)
			}
		})
	}
}
