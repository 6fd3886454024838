package apiserver

import (
	"context"
	"net/http"
	"net/http/httptest"
	"testing"
	"unsafe"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/apiserver/pkg/endpoints/request"
	genericserver "k8s.io/apiserver/pkg/server"

	"lanyard.dev/internal/apiserver/api"
	"lanyard.dev/internal/apiserver/loopback"
)

func TestCommandsAreNotInTheLineThatIsLogged(t *testing.T) {
	t.Parallel()
	for uri, want := range map[string]string{
		"/api/v1/namespaces/ns/pods/p/exec?command=secret":     "/api/v1/namespaces/ns/pods/p/exec?...",
		"/api/v1/namespaces/ns/pods/p/%65xec?comm%61nd=secret": "/api/v1/namespaces/ns/pods/p/%65xec?...",
		"/api/v1/namespaces/ns/pods/p/exec":                    "/api/v1/namespaces/ns/pods/p/exec",
		"/api/v1/pods?limit=5":                                 "/api/v1/pods?limit=5",
	} {
		withoutCommands(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			if r.RequestURI != want {
				t.Errorf("%s: got %s, want %s", uri, r.RequestURI, want)
			}
			if full := r.URL.RequestURI(); full != uri {
				t.Errorf("%s is served as %s", uri, full)
			}
		})).ServeHTTP(httptest.NewRecorder(), httptest.NewRequestWithContext(t.Context(), http.MethodGet, uri, nil))
	}
}

// TestGrowStack checks that the stack of a new goroutine moves when it grows, and not once growStack has grown it.
func TestGrowStack(t *testing.T) {
	t.Parallel()
	for want, grow := range map[bool]func(){true: func() {}, false: func() { growStack(0) }} {
		moved := make(chan bool)
		go func() {
			grow()
			var local byte
			before := uintptr(unsafe.Pointer(&local))
			useStack(requestStack / 1024)
			moved <- uintptr(unsafe.Pointer(&local)) != before
		}()
		if got := <-moved; got != want {
			t.Errorf("the stack moved: %v, want %v", got, want)
		}
	}
}

// useStack uses that many kilobytes of stack.
//
//go:noinline
func useStack(kilobytes int) byte {
	var frame [900]byte
	if kilobytes > 1 {
		frame[0] = useStack(kilobytes - 1)
	}
	return frame[kilobytes]
}

// allowing is a policy that allows everything.
type allowing struct{ authorizer.AuthorizerFunc }

func (allowing) Decides(user.Info) error { return nil }

// TestNestedCallsNeedNoPlace sends a request of a user that takes the only place for writes. Its handler makes a call of a
// controller and waits for the answer. The server is then told to stop, and the handler makes another call.
func TestNestedCallsNeedNoPlace(t *testing.T) {
	t.Parallel()
	tables := api.All()
	c := genericserver.NewConfig(serializer.NewCodecFactory(tables.NewScheme()))
	c.MaxRequestsInFlight, c.MaxMutatingRequestsInFlight = 1, 1
	c.RequestInfoResolver = genericserver.NewRequestInfoResolver(c)
	c.Authentication.Authenticator = authenticator.RequestFunc(func(r *http.Request) (*authenticator.Response, bool, error) {
		return &authenticator.Response{User: &user.DefaultInfo{Name: r.Header.Get("User-Agent")}}, true, nil
	})
	l := loopback.New()
	client, err := l.Client("system:controller:test")
	if err != nil {
		t.Fatal(err)
	}
	var served []string
	var handler http.Handler
	post := func(ctx context.Context, as string) int {
		r := httptest.NewRequestWithContext(ctx, http.MethodPost, "/api/v1/namespaces", http.NoBody)
		r.Header.Set("User-Agent", as)
		answer := httptest.NewRecorder()
		handler.ServeHTTP(answer, r)
		return answer.Code
	}
	create := func(ctx context.Context) error {
		_, err := client.CoreV1().ConfigMaps("ns").Create(ctx, &corev1.ConfigMap{}, metav1.CreateOptions{})
		return err
	}
	api := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		who, _ := request.UserFrom(r.Context())
		served = append(served, who.GetName())
		if who.GetName() != "jane" {
			w.WriteHeader(http.StatusNotFound)
			return
		}
		if got := post(t.Context(), "joe"); got != http.StatusTooManyRequests {
			t.Errorf("another user is answered with %d, so the place is free", got)
		}
		if err := create(r.Context()); !apierrors.IsNotFound(err) {
			t.Errorf("the call of a controller: %v", err)
		}
		go c.NonLongRunningRequestWaitGroup.Wait()
		for c.NonLongRunningRequestWaitGroup.Add(1) == nil {
			c.NonLongRunningRequestWaitGroup.Done()
		}
		if got := post(t.Context(), "joe"); got != http.StatusServiceUnavailable {
			t.Errorf("another user is answered with %d, so the server does not stop", got)
		}
		if err := create(r.Context()); !apierrors.IsNotFound(err) {
			t.Errorf("the call of a controller while the server stops: %v", err)
		}
	})
	allow := allowing{func(context.Context, authorizer.Attributes) (authorizer.Decision, string, error) {
		return authorizer.DecisionAllow, "", nil
	}}
	handler = wrap(api, allow, c, newRequestLimiter(c, tables), nil, streamFilters{})
	l.Serve(wrapCalls(api, allow, c))
	if got := post(t.Context(), "jane"); got != http.StatusOK || len(served) != 3 {
		t.Errorf("answered with %d; served %q", got, served)
	}
}
