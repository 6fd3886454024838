package server

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/component-base/metrics"
	"k8s.io/klog/v2"

	"lanyard.dev/internal/podoptions"
)

// Pods finds containers. Errors that are to be told with a status of their own are those of the API; View has a kubelet's.
type Pods interface {
	// Logged returns the ID of the container whose logs are meant: the present one or the last, or with previous the one
	// before it.
	Logged(namespace, pod, container string, previous bool) (id string, err error)
	// Running returns the ID of a container that runs.
	Running(namespace, pod, container string) (id string, err error)
	// Sandbox returns the ID of the sandbox that a pod runs in.
	Sandbox(namespace, pod string) (id string, err error)
}

// Runtime is the container runtime.
type Runtime interface {
	// Logs writes the logs of a container until they end, and with Follow until the container does or ctx.
	Logs(ctx context.Context, containerID string, options *corev1.PodLogOptions, stdout, stderr io.Writer) error
	// ExecURL, AttachURL and PortForwardURL return where the runtime serves this one session, on loopback.
	ExecURL(ctx context.Context, containerID string, command []string, streams podoptions.Streams) (*url.URL, error)
	AttachURL(ctx context.Context, containerID string, streams podoptions.Streams) (*url.URL, error)
	PortForwardURL(ctx context.Context, sandboxID string, ports []int32) (*url.URL, error)
}

// Config is what a server is made of. All of it is needed but Metrics.
type Config struct {
	NodeName string
	Pods     Pods
	Runtime  Runtime
	// Certificate returns what to serve with; it is asked for each connection.
	Certificate func(*tls.ClientHelloInfo) (*tls.Certificate, error)
	// ClientCAs returns the CAs of client certificates, nil if there is none now; it is asked for each request.
	ClientCAs func() *x509.CertPool
	// Reviews asks the authority: kubernetes.Interface's AuthorizationV1().SubjectAccessReviews().
	Reviews Reviews
	// Tokens asks the authority whose a bearer token is: kubernetes.Interface's AuthenticationV1().TokenReviews().
	Tokens TokenReviews
	// Metrics are served at /metrics.
	Metrics metrics.Gatherer
}

const (
	headerTimeout = 10 * time.Second
	idleTimeout   = 90 * time.Second
	// answerTimeout bounds an answer that is neither a log nor a session.
	answerTimeout = time.Minute
	// maxHeader bounds a request: a command comes in its first line.
	maxHeader = 512 << 10
	// stopTimeout bounds how long sessions and answers may take to end once the server is to stop.
	stopTimeout = 3 * time.Second
)

// Server serves one node.
type Server struct {
	Config
	users    *identifier
	sessions sync.WaitGroup
}

// New returns a server.
func New(c Config) (*Server, error) {
	if c.NodeName == "" || c.Pods == nil || c.Runtime == nil || c.Certificate == nil || c.ClientCAs == nil || c.Reviews == nil || c.Tokens == nil {
		return nil, errors.New("the node's server is not fully configured")
	}
	s := &Server{Config: c}
	s.users = newIdentifier(byCertificate(c.ClientCAs), c.Tokens)
	return s, nil
}

// Serve serves on l, which it closes, until ctx ends; sessions under way end with it. It returns nil then.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	server := &http.Server{
		Handler: s.Handler(), BaseContext: func(net.Listener) context.Context { return ctx },
		ReadHeaderTimeout: headerTimeout, IdleTimeout: idleTimeout, MaxHeaderBytes: maxHeader,
		ErrorLog: log.New(quietLog{}, "", 0),
	}
	stopped := make(chan struct{})
	defer context.AfterFunc(ctx, func() {
		defer close(stopped)
		s.stop(server)
	})()
	err := server.Serve(tls.NewListener(l, s.tls()))
	if ctx.Err() == nil {
		return err
	}
	<-stopped
	return nil
}

// tls leaves it to each request whether it needs a client certificate, and to verify it. SPDY needs HTTP/1.1.
func (s *Server) tls() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13, NextProtos: []string{"http/1.1"},
		GetCertificate: s.Certificate, ClientAuth: tls.RequestClientCert, SessionTicketsDisabled: true,
	}
}

func (s *Server) stop(server *http.Server) {
	ctx, cancel := context.WithTimeout(context.Background(), stopTimeout)
	defer cancel()
	_ = server.Shutdown(ctx)
	_ = server.Close()
	ended := make(chan struct{})
	go func() {
		s.sessions.Wait()
		close(ended)
	}()
	select {
	case <-ended:
	case <-ctx.Done():
	}
}

// quietLog takes what net/http says of connections that go wrong.
type quietLog struct{}

// Write implements io.Writer.
func (quietLog) Write(p []byte) (int, error) {
	klog.V(2).InfoS("Connection to the node's server", "said", strings.TrimSpace(string(p)))
	return len(p), nil
}

// Handler returns all that is served. A session needs the right to create, also where it begins as a GET, as a WebSocket
// does: who may only read would get a shell by it.
func (s *Server) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("ok")) })
	mux.Handle("GET /containerLogs/{namespace}/{pod}/{container}", s.allowed("get", "proxy", s.logs))
	for path, session := range map[string]http.HandlerFunc{
		"/exec/{namespace}/{pod}/{container}": s.exec, "/attach/{namespace}/{pod}/{container}": s.attach, "/portForward/{namespace}/{pod}": s.portForward,
	} {
		mux.Handle("GET "+path, s.allowed("create", "proxy", session))
		mux.Handle("POST "+path, s.allowed("create", "proxy", session))
	}
	if s.Metrics != nil {
		handler := metrics.HandlerFor(s.Metrics, metrics.HandlerOpts{ErrorHandling: metrics.ContinueOnError})
		mux.Handle("GET /metrics", s.allowed("get", "metrics", handler.ServeHTTP))
	}
	return bounded(mux, answerTimeout)
}

// bounded ends the reading of bodies that do not arrive, and the writing of answers that nobody reads, after a time. Logs
// lift the bound when they begin, and sessions when they take over the connection: both last as long as somebody looks on.
func bounded(h http.Handler, timeout time.Duration) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		controller, deadline := http.NewResponseController(w), time.Now().Add(timeout)
		if r.ContentLength != 0 {
			_ = controller.SetReadDeadline(deadline)
		}
		_ = controller.SetWriteDeadline(deadline)
		h.ServeHTTP(w, r)
	})
}

// named is what a request's path names.
func named(r *http.Request) (namespace, pod, container string) {
	return r.PathValue("namespace"), r.PathValue("pod"), r.PathValue("container")
}

// refuse tells why a request is not served, with the status the error has if it is one of the API.
func refuse(w http.ResponseWriter, err error) {
	status := http.StatusInternalServerError
	if known := apierrors.APIStatus(nil); errors.As(err, &known) && known.Status().Code != 0 {
		status = int(known.Status().Code)
	}
	if status == http.StatusInternalServerError {
		klog.ErrorS(err, "Could not serve a request about a pod")
	}
	http.Error(w, err.Error(), status)
}
