package apiserver

import (
	"net/http"
	"sync/atomic"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"lanyard.dev/internal/apiserver/api"
	"lanyard.dev/internal/apiserver/issuance"
	"lanyard.dev/internal/apiserver/keyring"
	"lanyard.dev/internal/apiserver/mirror"
)

// NewWith is New with other tables than the server's own.
func NewWith(o Options, tables api.Tables) (*Server, error) { return newServer(o, tables) }

// Keyring returns the signing keys that are kept in etcd.
func (s *Server) Keyring() *keyring.Keyring { return s.tokens.ring }

// Listen adds a listener to the feed of a mirrored resource, before Run.
func (s *Server) Listen(resource schema.GroupResource, l mirror.Listener) {
	s.storage.mirror.Feed(resource).Listen(l)
}

// Journal returns the ledger.
func (s *Server) Journal() *issuance.Journal { return s.ledger }

// Handlers returns two handlers of every request: whole has the ephemeral handler, library does not. passed counts the
// requests that the ephemeral handler passes on. Both write to the same audit log.
func (s *Server) Handlers(passed *atomic.Int64) (whole, library http.Handler) {
	director := s.handler.server.Handler.Director
	library = s.handler.chain(director)
	whole = s.handler.chain(s.handler.ephemeral.Before(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		passed.Add(1)
		director.ServeHTTP(w, r)
	})))
	return whole, library
}
