package auditlog

import (
	"net/http"
	"net/url"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	auditinternal "k8s.io/apiserver/pkg/apis/audit"
	"k8s.io/apiserver/pkg/audit"
	"k8s.io/apiserver/pkg/authorization/authorizer"
)

// CredentialsFunc reports whether the bodies of requests for a resource, or for a subresource of it, contain tokens or secret
// values. The subresource is "" for the resource itself.
type CredentialsFunc func(resource, subresource string) bool

// capLevel limits the audit level of requests whose bodies contain tokens or secret values to Metadata, whatever the policy is,
// so that these bodies are never logged.
type capLevel struct {
	audit.PolicyRuleEvaluator
	credentials CredentialsFunc
}

// EvaluatePolicyRule implements audit.PolicyRuleEvaluator.
func (c capLevel) EvaluatePolicyRule(attributes authorizer.Attributes) audit.RequestAuditConfig {
	config := c.PolicyRuleEvaluator.EvaluatePolicyRule(attributes)
	if c.credentials(attributes.GetResource(), attributes.GetSubresource()) && auditinternal.LevelMetadata.Less(config.Level) {
		config.Level = auditinternal.LevelMetadata
	}
	return config
}

// hideMessages removes the message of a refusal from events about such requests, because it may quote the body or even the
// stored object: the library's error about a patch that cannot be applied contains the whole patched Secret. The code and the
// reason are logged.
type hideMessages struct {
	audit.Backend
	credentials CredentialsFunc
}

// ProcessEvents implements audit.Sink.
func (h hideMessages) ProcessEvents(events ...*auditinternal.Event) bool {
	logged := make([]*auditinternal.Event, len(events))
	for i, event := range events {
		logged[i] = event
		if h.mayQuote(event) {
			logged[i] = withoutMessage(event)
		}
	}
	return h.Backend.ProcessEvents(logged...)
}

// mayQuote reports whether the message of an event's response may quote a credential.
func (h hideMessages) mayQuote(event *auditinternal.Event) bool {
	if event.ObjectRef == nil || event.ResponseStatus == nil || event.ResponseStatus.Message == "" {
		return false
	}
	switch event.ResponseStatus.Code {
	case http.StatusUnauthorized, http.StatusForbidden, http.StatusNotFound, http.StatusConflict:
		return false // these messages contain names of objects and fields only
	}
	return h.credentials(event.ObjectRef.Resource, event.ObjectRef.Subresource)
}

// withoutMessage returns a copy of an event without the message. It copies, because other backends may share the event.
func withoutMessage(event *auditinternal.Event) *auditinternal.Event {
	redacted, status := *event, *event.ResponseStatus
	redacted.ResponseStatus = &metav1.Status{
		Status: status.Status, Reason: status.Reason, Code: status.Code,
		Message: "not logged: it may quote a secret value or a token",
	}
	return &redacted
}

// withheld replaces a command in the log.
const withheld = "withheld"

// hideCommands removes the commands that are run in containers from events. A command is part of the URL of an exec request,
// the only URL that may contain a password. The container and the streams are logged.
type hideCommands struct{ audit.Backend }

// ProcessEvents implements audit.Sink.
func (h hideCommands) ProcessEvents(events ...*auditinternal.Event) bool {
	logged := make([]*auditinternal.Event, len(events))
	for i, event := range events {
		logged[i] = event
		if event.ObjectRef != nil && event.ObjectRef.Resource == "pods" && event.ObjectRef.Subresource == "exec" {
			redacted := *event // other backends may share the event
			redacted.RequestURI = withoutCommand(event.RequestURI)
			logged[i] = &redacted
		}
	}
	return h.Backend.ProcessEvents(logged...)
}

// withoutCommand returns a URL without the command in its query.
func withoutCommand(uri string) string {
	parsed, err := url.ParseRequestURI(uri)
	if err != nil {
		return withheld
	}
	query, err := url.ParseQuery(parsed.RawQuery)
	if err != nil {
		parsed.RawQuery = withheld
		return parsed.RequestURI()
	}
	if query.Has("command") {
		query.Set("command", withheld)
	}
	parsed.RawQuery = query.Encode()
	return parsed.RequestURI()
}
