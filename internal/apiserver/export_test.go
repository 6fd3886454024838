package apiserver

import (
	"k8s.io/apimachinery/pkg/runtime/schema"

	"lanyard.dev/internal/apiserver/api"
	"lanyard.dev/internal/apiserver/mirror"
)

// NewWith is New with other tables than the server's own.
func NewWith(o Options, tables api.Tables) (*Server, error) { return newServer(o, tables) }

// Listen adds a listener to the feed of a mirrored resource, before Run.
func (s *Server) Listen(resource schema.GroupResource, l mirror.Listener) {
	s.mirror.Feed(resource).Listen(l)
}
