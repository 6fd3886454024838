package loopback

import (
	"errors"
	"fmt"
	"net/http"
	"sync"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

// host is the server in the URLs of requests. Clients require one.
const host = "http://loopback"

var errNotServing = errors.New("the API is not served yet")

// Loopback makes clients of one server. Clients may be made before the server exists. Calls fail before Serve and after Stop.
type Loopback struct {
	mu      sync.Mutex
	handler http.Handler // nil if the API is not served
	calls   sync.WaitGroup
}

// New returns a Loopback.
func New() *Loopback { return &Loopback{} }

// Serve sets the handler that answers calls. It authenticates them by Authenticator.
func (l *Loopback) Serve(h http.Handler) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.handler = h
}

// Stop refuses further calls and waits until the handler has returned from all earlier ones.
func (l *Loopback) Stop() {
	l.Serve(nil)
	l.calls.Wait()
}

// begin returns the handler for one call. The caller calls end when the handler has returned.
func (l *Loopback) begin() (h http.Handler, end func(), err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.handler == nil {
		return nil, nil, errNotServing
	}
	l.calls.Add(1)
	return l.handler, l.calls.Done, nil
}

// Client returns a client that acts as the named user. Its only group is system:authenticated, so that it may do what
// its own role and the roles of every authenticated user grant.
func (l *Loopback) Client(name string) (kubernetes.Interface, error) {
	made, err := kubernetes.NewForConfig(l.Config(name))
	if err != nil {
		return nil, fmt.Errorf("make the client of %s: %w", name, err)
	}
	return made, nil
}

// Config returns the configuration of the client that Client returns. Calls have no limit on their rate.
func (l *Loopback) Config(name string) *rest.Config {
	who := &user.DefaultInfo{Name: name, Groups: []string{user.AllAuthenticated}}
	return &rest.Config{
		Host: host, Transport: &transport{loopback: l, who: who}, QPS: -1, UserAgent: "lanyard/" + name,
		ContentConfig:  rest.ContentConfig{ContentType: runtime.ContentTypeProtobuf, AcceptContentTypes: runtime.ContentTypeProtobuf},
		WarningHandler: rest.NoWarnings{},
	}
}

// identityKey is the key of the identity in the context of a request. Only transport sets it.
type identityKey struct{}

// Authenticator identifies the requests that clients of this package made.
type Authenticator struct{}

var _ authenticator.Request = Authenticator{}

// AuthenticateRequest implements authenticator.Request.
func (Authenticator) AuthenticateRequest(r *http.Request) (*authenticator.Response, bool, error) {
	who, ok := r.Context().Value(identityKey{}).(user.Info)
	if !ok {
		return nil, false, nil
	}
	return &authenticator.Response{User: who}, true, nil
}
