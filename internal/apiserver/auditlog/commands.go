package auditlog

import (
	"net/url"

	auditinternal "k8s.io/apiserver/pkg/apis/audit"
	"k8s.io/apiserver/pkg/audit"
)

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
