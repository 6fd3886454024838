package auditlog

import (
	"net/http"
	"net/url"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	auditinternal "k8s.io/apiserver/pkg/apis/audit"
	"k8s.io/apiserver/pkg/audit"
	"k8s.io/apiserver/pkg/authorization/authorizer"
)

// withoutCredentials caps what any policy logs of requests whose bodies carry tokens or secret values: their metadata
// may be logged, their bodies never.
type withoutCredentials struct{ audit.PolicyRuleEvaluator }

// EvaluatePolicyRule implements audit.PolicyRuleEvaluator.
func (w withoutCredentials) EvaluatePolicyRule(attributes authorizer.Attributes) audit.RequestAuditConfig {
	config := w.PolicyRuleEvaluator.EvaluatePolicyRule(attributes)
	if carriesCredentials(attributes.GetResource(), attributes.GetSubresource()) && auditinternal.LevelMetadata.Less(config.Level) {
		config.Level = auditinternal.LevelMetadata
	}
	return config
}

func carriesCredentials(resource, subresource string) bool {
	switch resource {
	case "secrets", "tokenreviews":
		return true
	case "serviceaccounts":
		return subresource == "token"
	}
	return false
}

// withoutQuotes keeps the words of a refusal out of events about such requests, since they may quote the body and even
// the stored object: the library's answer to a patch that does not fit holds the whole patched Secret. Code and reason
// are logged still.
type withoutQuotes struct{ audit.Backend }

// ProcessEvents implements audit.Sink.
func (w withoutQuotes) ProcessEvents(events ...*auditinternal.Event) bool {
	logged := make([]*auditinternal.Event, len(events))
	for i, event := range events {
		logged[i] = event
		if mayQuote(event) {
			logged[i] = withhold(event)
		}
	}
	return w.Backend.ProcessEvents(logged...)
}

func mayQuote(event *auditinternal.Event) bool {
	if event.ObjectRef == nil || event.ResponseStatus == nil || event.ResponseStatus.Message == "" {
		return false
	}
	switch event.ResponseStatus.Code {
	case http.StatusUnauthorized, http.StatusForbidden, http.StatusNotFound, http.StatusConflict:
		return false // these name objects and fields only
	}
	return carriesCredentials(event.ObjectRef.Resource, event.ObjectRef.Subresource)
}

// withhold copies the event, which others may share.
func withhold(event *auditinternal.Event) *auditinternal.Event {
	quiet, status := *event, *event.ResponseStatus
	quiet.ResponseStatus = &metav1.Status{
		Status: status.Status, Reason: status.Reason, Code: status.Code,
		Message: "not logged: it may quote a secret value or a token",
	}
	return &quiet
}

// withheld stands in the log for what is run in a container.
const withheld = "withheld"

// withoutCommands keeps what is run in containers out of events: a command is part of the request's URL, and may hold a
// password. In which container it was run, and with which streams, is logged still.
type withoutCommands struct{ audit.Backend }

// ProcessEvents implements audit.Sink.
func (w withoutCommands) ProcessEvents(events ...*auditinternal.Event) bool {
	logged := make([]*auditinternal.Event, len(events))
	for i, event := range events {
		logged[i] = event
		if event.ObjectRef != nil && event.ObjectRef.Resource == "pods" && event.ObjectRef.Subresource == "exec" {
			quiet := *event // others may share the event
			quiet.RequestURI = withoutCommand(event.RequestURI)
			logged[i] = &quiet
		}
	}
	return w.Backend.ProcessEvents(logged...)
}

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
