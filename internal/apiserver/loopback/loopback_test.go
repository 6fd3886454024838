package loopback

import (
	"context"
	"encoding/base64"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
)

// protobuf encodes an object as a server does.
func protobuf(t *testing.T, obj runtime.Object) []byte {
	t.Helper()
	info, _ := runtime.SerializerInfoForMediaType(scheme.Codecs.SupportedMediaTypes(), runtime.ContentTypeProtobuf)
	data, err := runtime.Encode(scheme.Codecs.EncoderForVersion(info.Serializer, corev1.SchemeGroupVersion), obj)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func clientOf(t *testing.T, h http.HandlerFunc) kubernetes.Interface {
	t.Helper()
	l := New()
	l.Serve(h)
	c, err := l.Client("system:controller:test")
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func get(t *testing.T, c kubernetes.Interface) error {
	t.Helper()
	_, err := c.CoreV1().ConfigMaps("ns").Get(t.Context(), "c", metav1.GetOptions{})
	return err
}

func TestCallReachesTheHandler(t *testing.T) {
	t.Parallel()
	answer := protobuf(t, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "c"}, Data: map[string]string{"a": "b"}})
	var seen *http.Request
	var body []byte
	c := clientOf(t, func(w http.ResponseWriter, r *http.Request) {
		seen = r
		body, _ = io.ReadAll(r.Body)
		w.Header().Set("Content-Type", runtime.ContentTypeProtobuf)
		w.WriteHeader(http.StatusCreated)
		_, _ = w.Write(answer)
	})
	made, err := c.CoreV1().ConfigMaps("ns").Create(t.Context(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "c"}}, metav1.CreateOptions{})
	if err != nil || made.Data["a"] != "b" {
		t.Fatalf("got %+v, %v", made, err)
	}
	if seen.Method != http.MethodPost || seen.RequestURI != "/api/v1/namespaces/ns/configmaps" || seen.ContentLength != int64(len(body)) || len(body) == 0 {
		t.Errorf("got %s %s with %d bytes, %d announced", seen.Method, seen.RequestURI, len(body), seen.ContentLength)
	}
	for name := range seen.Header {
		if name == "Authorization" || strings.HasPrefix(name, "Impersonate-") {
			t.Errorf("the request has a header %s", name)
		}
	}
	if got := seen.Header.Get("Content-Type"); got != runtime.ContentTypeProtobuf {
		t.Errorf("the body is %s", got)
	}
}

// TestIdentityIsOfTheCallAlone nests a call in a request of another user, whose context holds values of that request.
func TestIdentityIsOfTheCallAlone(t *testing.T) {
	t.Parallel()
	type outer struct{}
	var who user.Info
	var inherited any
	c := clientOf(t, func(w http.ResponseWriter, r *http.Request) {
		response, ok, err := Authenticator{}.AuthenticateRequest(r)
		if err != nil || !ok {
			t.Errorf("not authenticated: %v", err)
			return
		}
		who, inherited = response.User, r.Context().Value(outer{})
		w.WriteHeader(http.StatusNotFound)
	})
	ctx := context.WithValue(t.Context(), outer{}, "secret")
	ctx = context.WithValue(ctx, identityKey{}, user.Info(&user.DefaultInfo{Name: "system:controller:other"}))
	_, err := c.CoreV1().ConfigMaps("ns").Get(ctx, "c", metav1.GetOptions{})
	if !apierrors.IsNotFound(err) {
		t.Errorf("got %v", err)
	}
	if who == nil || who.GetName() != "system:controller:test" || !slices.Equal(who.GetGroups(), []string{"system:authenticated"}) || who.GetUID() != "" || len(who.GetExtra()) > 0 {
		t.Errorf("the call is of %+v", who)
	}
	if inherited != nil {
		t.Error("the call inherits values of its caller's context")
	}
}

// TestIdentityCannotBeClaimed sends requests over a socket with everything that a client could try.
func TestIdentityCannotBeClaimed(t *testing.T) {
	t.Parallel()
	served := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, ok, _ := (Authenticator{}).AuthenticateRequest(r); ok {
			w.WriteHeader(http.StatusTeapot)
		}
	}))
	defer served.Close()
	const name = "system:controller:test"
	for header, value := range map[string]string{
		"Authorization": "Bearer " + name, "Proxy-Authorization": name, "Impersonate-User": name, "X-Remote-User": name,
		"User-Agent": "lanyard/" + name, "Host": "loopback", "Cookie": base64.StdEncoding.EncodeToString([]byte(name)),
	} {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, served.URL+"/api/v1/namespaces", nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set(header, value)
		if header == "Host" {
			r.Host = value
		}
		answer, err := served.Client().Do(r)
		if err != nil {
			t.Fatal(err)
		}
		_ = answer.Body.Close()
		if answer.StatusCode != http.StatusOK {
			t.Errorf("a request with the header %s is taken for one of this process", header)
		}
	}
}

func TestDeadlines(t *testing.T) {
	t.Parallel()
	hang := make(chan struct{})
	defer close(hang)
	deaf := http.Handler(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-hang }))
	l := New()
	l.Serve(deaf)
	request := func(ctx context.Context) *http.Request {
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, host+"/api/v1/nodes", nil)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	call := func(ctx context.Context, timeout time.Duration) error {
		response, err := (&transport{loopback: l, who: &user.DefaultInfo{}, timeout: timeout}).RoundTrip(request(ctx))
		if err == nil {
			_ = response.Body.Close()
		}
		return err
	}
	if err := call(t.Context(), time.Millisecond); !errors.Is(err, errTimeout) {
		t.Errorf("its own deadline: %v", err)
	}
	soon, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if err := call(soon, time.Hour); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("the caller's deadline: %v", err)
	}
	ended, end := context.WithCancel(t.Context())
	end()
	if err := call(ended, time.Hour); !errors.Is(err, context.Canceled) {
		t.Errorf("a caller that has gone: %v", err)
	}
}

// TestHandlerKnowsTheDeadline lets a handler end by its context.
func TestHandlerKnowsTheDeadline(t *testing.T) {
	t.Parallel()
	ended := make(chan bool, 1)
	c := clientOf(t, func(_ http.ResponseWriter, r *http.Request) {
		_, bounded := r.Context().Deadline()
		<-r.Context().Done()
		ended <- bounded
	})
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(time.Millisecond, cancel)
	_, err := c.CoreV1().ConfigMaps("ns").Get(ctx, "c", metav1.GetOptions{})
	if err == nil || !<-ended {
		t.Errorf("got %v from a handler without a deadline", err)
	}
}

// TestStop stops while a handler runs on after its caller has gone.
func TestStop(t *testing.T) {
	t.Parallel()
	l := New()
	called, release, returned := make(chan struct{}), make(chan struct{}), make(chan struct{})
	l.Serve(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		close(called)
		<-release
		close(returned)
	}))
	c, err := l.Client("system:controller:test")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-called; cancel() }()
	if _, err := c.CoreV1().ConfigMaps("ns").Get(ctx, "c", metav1.GetOptions{}); !errors.Is(err, context.Canceled) {
		t.Errorf("the call: %v", err)
	}
	stopped := make(chan struct{})
	go func() { l.Stop(); close(stopped) }()
	for get(t, c) == nil || !errors.Is(get(t, c), errNotServing) {
		time.Sleep(time.Millisecond)
	}
	select {
	case <-stopped:
		t.Error("stopped while a handler runs")
	default:
	}
	close(release)
	<-stopped
	select {
	case <-returned:
	default:
		t.Error("stopped before the handler returned")
	}
}

func TestFailures(t *testing.T) {
	t.Parallel()
	t.Run("panic", func(t *testing.T) {
		t.Parallel()
		c := clientOf(t, func(http.ResponseWriter, *http.Request) { panic("secret") })
		if err := get(t, c); !errors.Is(err, errPanicked) || strings.Contains(err.Error(), "secret") {
			t.Errorf("got %v", err)
		}
	})
	t.Run("before the server", func(t *testing.T) {
		t.Parallel()
		c, err := New().Client("early")
		if err != nil {
			t.Fatal(err)
		}
		if err := get(t, c); !errors.Is(err, errNotServing) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("watch", func(t *testing.T) {
		t.Parallel()
		c := clientOf(t, func(http.ResponseWriter, *http.Request) { t.Error("the handler is called") })
		if _, err := c.CoreV1().Pods("").Watch(t.Context(), metav1.ListOptions{}); !errors.Is(err, errWatch) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("large request", func(t *testing.T) {
		t.Parallel()
		c := clientOf(t, func(http.ResponseWriter, *http.Request) { t.Error("the handler is called") })
		big := &corev1.ConfigMap{BinaryData: map[string][]byte{"a": make([]byte, maxRequestBytes)}}
		_, err := c.CoreV1().ConfigMaps("ns").Create(t.Context(), big, metav1.CreateOptions{})
		if err == nil || !strings.Contains(err.Error(), "larger than") {
			t.Errorf("got %v", err)
		}
	})
	t.Run("what was deleted", func(t *testing.T) {
		t.Parallel()
		c := clientOf(t, func(w http.ResponseWriter, r *http.Request) {
			if strings.HasSuffix(r.URL.Path, "/held") {
				w.WriteHeader(http.StatusConflict)
				return
			}
			for range maxAnswerBytes>>20 + 1 {
				if _, err := w.Write(make([]byte, 1<<20)); err != nil {
					t.Error(err)
				}
			}
		})
		pods := c.CoreV1().Pods("ns")
		if err := pods.DeleteCollection(t.Context(), metav1.DeleteOptions{}, metav1.ListOptions{}); err != nil {
			t.Errorf("a large collection: %v", err)
		}
		if err := pods.Delete(t.Context(), "held", metav1.DeleteOptions{}); !apierrors.IsConflict(err) {
			t.Errorf("a refusal: %v", err)
		}
	})
	t.Run("large answer", func(t *testing.T) {
		t.Parallel()
		l := New()
		l.Serve(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			for {
				if _, err := w.Write(make([]byte, 1<<10)); err != nil {
					return
				}
			}
		}))
		r := httptest.NewRequest(http.MethodGet, host+"/api", nil)
		if _, err := (&transport{loopback: l, who: &user.DefaultInfo{}, maxAnswer: 1 << 20}).RoundTrip(r); !errors.Is(err, errTooLarge) {
			t.Errorf("got %v", err)
		}
	})
}

// TestOneTryPerCall checks that a refusal with Retry-After is returned at once. A client over a network would sleep and try
// again.
func TestOneTryPerCall(t *testing.T) {
	t.Parallel()
	tries := 0
	c := clientOf(t, func(w http.ResponseWriter, _ *http.Request) {
		tries++
		w.Header().Set("Retry-After", "1")
		w.WriteHeader(http.StatusTooManyRequests)
	})
	if err := get(t, c); !apierrors.IsTooManyRequests(err) || tries != 1 {
		t.Errorf("got %v after %d tries", err, tries)
	}
}
