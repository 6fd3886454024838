package loopback

import (
	"errors"
	"fmt"
	"net/http"
	"sync/atomic"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

const (
	// AdminName is the user that prepares the server at its start, as in Kubernetes. It is a member of system:masters.
	AdminName = "system:apiserver"

	// host stands in URLs where a client expects the name of a server.
	host = "http://loopback"
)

var errNotServing = errors.New("the API is not served yet")

// Loopback hands out clients of one server. Clients may be made before the server exists; calls fail until Serve has
// been called.
type Loopback struct{ handler atomic.Pointer[http.Handler] }

// New returns a Loopback.
func New() *Loopback { return &Loopback{} }

// Serve sets the handler that answers calls: the whole chain of the server.
func (l *Loopback) Serve(h http.Handler) { l.handler.Store(&h) }

// Config returns the configuration of a client that acts as the given user. It has no limit on the rate of calls.
func (l *Loopback) Config(who user.Info) *rest.Config {
	return &rest.Config{
		Host: host, Transport: &transport{loopback: l, who: who}, QPS: -1, UserAgent: "lanyard/" + who.GetName(),
		ContentConfig:  rest.ContentConfig{ContentType: runtime.ContentTypeProtobuf, AcceptContentTypes: runtime.ContentTypeProtobuf},
		WarningHandler: rest.NoWarnings{},
	}
}

// Client returns a client that acts as the named user. Its only group is system:authenticated, so that what it may do is
// what its own role and the roles of every authenticated user grant.
func (l *Loopback) Client(name string) (kubernetes.Interface, error) {
	return l.client(&user.DefaultInfo{Name: name, Groups: []string{user.AllAuthenticated}})
}

// Admin returns a client that may do everything. It is for the preparation of the server, before anything is served.
func (l *Loopback) Admin() (kubernetes.Interface, error) {
	return l.client(&user.DefaultInfo{Name: AdminName, Groups: []string{user.AllAuthenticated, user.SystemPrivilegedGroup}})
}

func (l *Loopback) client(who user.Info) (kubernetes.Interface, error) {
	made, err := kubernetes.NewForConfig(l.Config(who))
	if err != nil {
		return nil, fmt.Errorf("make the client of %s: %w", who.GetName(), err)
	}
	return made, nil
}
