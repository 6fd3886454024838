package server

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"syscall"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/util/proxy"
	"k8s.io/klog/v2"

	"lanyard.dev/internal/podoptions"
)

func (s *Server) exec(w http.ResponseWriter, r *http.Request) {
	streams, command, err := podoptions.ParseStreams(r.URL.Query())
	if err == nil && len(command) == 0 {
		err = fmt.Errorf("you must specify at least one command for the container")
	}
	if err != nil {
		writeError(w, apierrors.NewBadRequest(err.Error()))
		return
	}
	s.proxyToContainer(w, r, func(ctx context.Context, id string) (*url.URL, error) {
		return s.Runtime.ExecURL(ctx, id, command, streams)
	})
}

func (s *Server) attach(w http.ResponseWriter, r *http.Request) {
	streams, _, err := podoptions.ParseStreams(r.URL.Query())
	if err != nil {
		writeError(w, apierrors.NewBadRequest(err.Error()))
		return
	}
	s.proxyToContainer(w, r, func(ctx context.Context, id string) (*url.URL, error) {
		return s.Runtime.AttachURL(ctx, id, streams)
	})
}

// proxyToContainer proxies a session to the running container that the request's path names.
func (s *Server) proxyToContainer(w http.ResponseWriter, r *http.Request, urlOf func(ctx context.Context, containerID string) (*url.URL, error)) {
	namespace, pod, container := pathNames(r)
	s.proxySession(w, r, func(ctx context.Context) (*url.URL, error) {
		id, err := s.Pods.RunningContainer(namespace, pod, container)
		if err != nil {
			return nil, err
		}
		return urlOf(ctx, id)
	})
}

func (s *Server) portForward(w http.ResponseWriter, r *http.Request) {
	ports, err := podoptions.ParsePorts(r.URL.Query())
	if err != nil {
		writeError(w, apierrors.NewBadRequest(err.Error()))
		return
	}
	namespace, pod, _ := pathNames(r)
	s.proxySession(w, r, func(ctx context.Context) (*url.URL, error) {
		id, err := s.Pods.Sandbox(namespace, pod)
		if err != nil {
			return nil, err
		}
		return s.Runtime.PortForwardURL(ctx, id, ports)
	})
}

// proxySession connects the client with the runtime until one of them closes the connection, or the server stops.
func (s *Server) proxySession(w http.ResponseWriter, r *http.Request, find func(context.Context) (*url.URL, error)) {
	target, err := find(r.Context())
	if err == nil {
		err = checkLoopback(target)
	}
	if err != nil {
		writeError(w, err)
		return
	}
	s.sessions.Add(1)
	defer s.sessions.Done()
	// The proxy library logs the URL, which gives access to the session. Its log lines are useless without the URL, so they are
	// discarded.
	ctx := klog.NewContext(r.Context(), klog.Logger{})
	handler := proxy.NewUpgradeAwareHandler(target, &http.Transport{DialContext: loopbackDialer(ctx)}, false, true, responder{})
	handler.UseLocationHost = true
	handler.ServeHTTP(w, r.WithContext(ctx))
}

// checkLoopback returns an error if the URL is not on this machine's loopback: a server elsewhere could pretend to be the
// runtime.
func checkLoopback(target *url.URL) error {
	host := target.Hostname()
	if ip := net.ParseIP(host); target.Scheme != "http" || host != "localhost" && (ip == nil || !ip.IsLoopback()) {
		return fmt.Errorf("the container runtime's streaming server is at %s://%s: only http on loopback is allowed", target.Scheme, target.Host)
	}
	return nil
}

// loopbackDialer returns a function that connects to loopback addresses only, also if a name resolves to another one. The
// connections are closed when ctx ends.
func loopbackDialer(ctx context.Context) func(context.Context, string, string) (net.Conn, error) {
	return func(dialing context.Context, network, address string) (net.Conn, error) {
		plain := net.Dialer{Timeout: headerTimeout, ControlContext: allowLoopback}
		conn, err := plain.DialContext(dialing, network, address)
		if err != nil {
			return nil, err
		}
		return &sessionConn{Conn: conn, stopWatching: context.AfterFunc(ctx, func() { _ = conn.Close() })}, nil
	}
}

func allowLoopback(_ context.Context, _, address string, _ syscall.RawConn) error {
	host, _, err := net.SplitHostPort(address)
	if ip := net.ParseIP(host); err != nil || ip == nil || !ip.IsLoopback() {
		return fmt.Errorf("%s is not loopback", address)
	}
	return nil
}

// sessionConn is a connection that is closed when its session ends.
type sessionConn struct {
	net.Conn
	stopWatching func() bool
}

// Close implements net.Conn.
func (l *sessionConn) Close() error {
	l.stopWatching()
	return l.Conn.Close()
}

// responder answers errors that occur before the client and the runtime are connected.
type responder struct{}

// Error implements proxy.ErrorResponder.
func (responder) Error(w http.ResponseWriter, _ *http.Request, err error) { writeError(w, err) }

// logs serves the logs of a container.
func (s *Server) logs(w http.ResponseWriter, r *http.Request) {
	options, err := logOptions(r)
	if err != nil {
		writeError(w, err)
		return
	}
	namespace, pod, container := pathNames(r)
	id, err := s.Pods.LogContainer(namespace, pod, container, options.Previous)
	if err != nil {
		writeError(w, err)
		return
	}
	_ = http.NewResponseController(w).SetWriteDeadline(time.Time{}) // see withDeadlines
	out := &flushWriter{w: w}
	stdout, stderr := selectStreams(options, out)
	err = s.Runtime.Logs(r.Context(), id, options, stdout, stderr)
	if err != nil && !out.started && r.Context().Err() == nil {
		writeError(w, apierrors.NewBadRequest(err.Error()))
	}
}

func logOptions(r *http.Request) (*corev1.PodLogOptions, error) {
	query, options := r.URL.Query(), &corev1.PodLogOptions{}
	if err := podoptions.Log(&query, options); err != nil {
		return nil, apierrors.NewBadRequest(err.Error())
	}
	if errs := podoptions.ValidateLog(options); len(errs) > 0 {
		return nil, apierrors.NewInvalid(corev1.SchemeGroupVersion.WithKind("PodLogOptions").GroupKind(), "", errs)
	}
	return options, nil
}

// selectStreams returns out for each stream that the options select, and io.Discard for the other.
func selectStreams(o *corev1.PodLogOptions, out io.Writer) (stdout, stderr io.Writer) {
	switch {
	case o.Stream != nil && *o.Stream == corev1.LogStreamStdout:
		return out, io.Discard
	case o.Stream != nil && *o.Stream == corev1.LogStreamStderr:
		return io.Discard, out
	}
	return out, out
}

// flushWriter flushes after each write, because the client may follow the logs.
type flushWriter struct {
	w       http.ResponseWriter
	started bool
}

// Write implements io.Writer.
func (f *flushWriter) Write(p []byte) (int, error) {
	if !f.started {
		f.started = true
		f.w.Header().Set("Content-Type", "text/plain")
	}
	n, err := f.w.Write(p)
	if err == nil {
		err = http.NewResponseController(f.w).Flush()
	}
	return n, err
}
