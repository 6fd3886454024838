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

// Pods finds containers. An error that is an apierrors.APIStatus is returned to the client with its status.
type Pods interface {
	// LogContainer returns the ID of the container whose logs are to be served: the current or the last one, or, with previous,
	// the one before.
	LogContainer(namespace, pod, container string, previous bool) (id string, err error)
	// RunningContainer returns the ID of a running container.
	RunningContainer(namespace, pod, container string) (id string, err error)
	// Sandbox returns the ID of the pod's sandbox.
	Sandbox(namespace, pod string) (id string, err error)
}

// Runtime is the container runtime.
type Runtime interface {
	// Logs writes the logs of a container. With Follow, it returns when the container or ctx ends.
	Logs(ctx context.Context, containerID string, options *corev1.PodLogOptions, stdout, stderr io.Writer) error
	// ExecURL, AttachURL and PortForwardURL return the URL, on loopback, at which the runtime serves this session.
	ExecURL(ctx context.Context, containerID string, command []string, streams podoptions.Streams) (*url.URL, error)
	AttachURL(ctx context.Context, containerID string, streams podoptions.Streams) (*url.URL, error)
	PortForwardURL(ctx context.Context, sandboxID string, ports []int32) (*url.URL, error)
}

// Config configures a server. All fields but Metrics are required.
type Config struct {
	NodeName string
	Pods     Pods
	Runtime  Runtime
	// Certificate returns the serving certificate. It is called for each connection.
	Certificate func(*tls.ClientHelloInfo) (*tls.Certificate, error)
	// ClientCAs returns the CAs of client certificates, or nil if there is none. It is called for each request.
	ClientCAs func() *x509.CertPool
	// Reviews authorizes requests: AuthorizationV1().SubjectAccessReviews() of a client.
	Reviews Reviews
	// Tokens authenticates bearer tokens: AuthenticationV1().TokenReviews() of a client.
	Tokens TokenReviews
	// Metrics, where not nil, are served at /metrics.
	Metrics metrics.Gatherer
}

const (
	headerTimeout = 10 * time.Second
	idleTimeout   = 90 * time.Second
	// answerTimeout bounds an answer that is neither logs nor a session.
	answerTimeout = time.Minute
	// maxHeader bounds the header of a request. The command of exec is in the request line.
	maxHeader = 512 << 10
	// stopTimeout bounds how long sessions and answers may take to end when the server stops.
	stopTimeout = 3 * time.Second
)

// Server serves one node.
type Server struct {
	Config
	clients  *clientAuthenticator
	sessions sync.WaitGroup
}

// New returns a server.
func New(c Config) (*Server, error) {
	if c.NodeName == "" || c.Pods == nil || c.Runtime == nil || c.Certificate == nil || c.ClientCAs == nil || c.Reviews == nil || c.Tokens == nil {
		return nil, errors.New("the node's server is not fully configured")
	}
	s := &Server{Config: c}
	s.clients = newClientAuthenticator(byCertificate(c.ClientCAs), c.Tokens)
	return s, nil
}

// Serve serves on l, which it closes, until ctx ends. Open sessions end with it, and Serve returns nil.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	server := &http.Server{
		Handler: s.Handler(), BaseContext: func(net.Listener) context.Context { return ctx },
		ReadHeaderTimeout: headerTimeout, IdleTimeout: idleTimeout, MaxHeaderBytes: maxHeader,
		ErrorLog: log.New(connectionLog{}, "", 0),
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

// tls returns a configuration that requests a client certificate and does not require or verify it: each request does that.
// HTTP/2 is not offered because SPDY needs HTTP/1.1.
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

// connectionLog logs net/http's errors of connections.
type connectionLog struct{}

// Write implements io.Writer.
func (connectionLog) Write(p []byte) (int, error) {
	klog.V(2).InfoS("Error of a connection to the node's server", "err", strings.TrimSpace(string(p)))
	return len(p), nil
}

// Handler returns the handler of all paths. A session requires the verb create, also if it begins with a GET, as WebSockets
// do: otherwise permission to read would be enough to get a shell.
func (s *Server) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("ok")) })
	mux.Handle("GET /containerLogs/{namespace}/{pod}/{container}", s.authorized("get", "proxy", s.logs))
	for path, session := range map[string]http.HandlerFunc{
		"/exec/{namespace}/{pod}/{container}": s.exec, "/attach/{namespace}/{pod}/{container}": s.attach, "/portForward/{namespace}/{pod}": s.portForward,
	} {
		mux.Handle("GET "+path, s.authorized("create", "proxy", session))
		mux.Handle("POST "+path, s.authorized("create", "proxy", session))
	}
	if s.Metrics != nil {
		handler := metrics.HandlerFor(s.Metrics, metrics.HandlerOpts{ErrorHandling: metrics.ContinueOnError})
		mux.Handle("GET /metrics", s.authorized("get", "metrics", handler.ServeHTTP))
	}
	return withDeadlines(mux, answerTimeout)
}

// withDeadlines bounds the time to read the request's body and to write the answer. Logs and sessions remove the bound when
// they begin, because they last as long as the client wants.
func withDeadlines(h http.Handler, timeout time.Duration) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		controller, deadline := http.NewResponseController(w), time.Now().Add(timeout)
		if r.ContentLength != 0 {
			_ = controller.SetReadDeadline(deadline)
		}
		_ = controller.SetWriteDeadline(deadline)
		h.ServeHTTP(w, r)
	})
}

// pathNames returns the names in a request's path.
func pathNames(r *http.Request) (namespace, pod, container string) {
	return r.PathValue("namespace"), r.PathValue("pod"), r.PathValue("container")
}

// writeError answers a request with an error. The status code is the code of the error if it is an apierrors.APIStatus, and
// otherwise 500.
func writeError(w http.ResponseWriter, err error) {
	status := http.StatusInternalServerError
	if known := apierrors.APIStatus(nil); errors.As(err, &known) && known.Status().Code != 0 {
		status = int(known.Status().Code)
	}
	if status == http.StatusInternalServerError {
		klog.ErrorS(err, "Could not serve a request about a pod")
	}
	http.Error(w, err.Error(), status)
}
