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
		refuse(w, apierrors.NewBadRequest(err.Error()))
		return
	}
	namespace, pod, container := named(r)
	s.converse(w, r, func(ctx context.Context) (*url.URL, error) {
		id, err := s.Pods.Running(namespace, pod, container)
		if err != nil {
			return nil, err
		}
		return s.Runtime.ExecURL(ctx, id, command, streams)
	})
}

func (s *Server) attach(w http.ResponseWriter, r *http.Request) {
	streams, _, err := podoptions.ParseStreams(r.URL.Query())
	if err != nil {
		refuse(w, apierrors.NewBadRequest(err.Error()))
		return
	}
	namespace, pod, container := named(r)
	s.converse(w, r, func(ctx context.Context) (*url.URL, error) {
		id, err := s.Pods.Running(namespace, pod, container)
		if err != nil {
			return nil, err
		}
		return s.Runtime.AttachURL(ctx, id, streams)
	})
}

func (s *Server) portForward(w http.ResponseWriter, r *http.Request) {
	ports, err := podoptions.ParsePorts(r.URL.Query())
	if err != nil {
		refuse(w, apierrors.NewBadRequest(err.Error()))
		return
	}
	namespace, pod, _ := named(r)
	s.converse(w, r, func(ctx context.Context) (*url.URL, error) {
		id, err := s.Pods.Sandbox(namespace, pod)
		if err != nil {
			return nil, err
		}
		return s.Runtime.PortForwardURL(ctx, id, ports)
	})
}

// converse joins the caller and the runtime until one of them hangs up, or the server is to stop.
func (s *Server) converse(w http.ResponseWriter, r *http.Request, find func(context.Context) (*url.URL, error)) {
	target, err := find(r.Context())
	if err == nil {
		err = local(target)
	}
	if err != nil {
		refuse(w, err)
		return
	}
	s.sessions.Add(1)
	defer s.sessions.Done()
	// The library logs the URL, which is a key to the session; what it says is of no use without.
	ctx := klog.NewContext(r.Context(), klog.Logger{})
	handler := proxy.NewUpgradeAwareHandler(target, &http.Transport{DialContext: dialer(ctx)}, false, true, responder{})
	handler.UseLocationHost = true
	handler.ServeHTTP(w, r.WithContext(ctx))
}

// local refuses a URL that is not of this machine: whoever speaks to a runtime speaks to its containers.
func local(target *url.URL) error {
	host := target.Hostname()
	if ip := net.ParseIP(host); target.Scheme != "http" || host != "localhost" && (ip == nil || !ip.IsLoopback()) {
		return fmt.Errorf("the container runtime's streaming server is at %s://%s: only http on loopback is connected to", target.Scheme, target.Host)
	}
	return nil
}

// dialer connects to loopback, whatever names stand for, for as long as ctx lasts.
func dialer(ctx context.Context) func(context.Context, string, string) (net.Conn, error) {
	return func(dialing context.Context, network, address string) (net.Conn, error) {
		plain := net.Dialer{Timeout: headerTimeout, ControlContext: onlyLoopback}
		conn, err := plain.DialContext(dialing, network, address)
		if err != nil {
			return nil, err
		}
		return &lasting{Conn: conn, forget: context.AfterFunc(ctx, func() { _ = conn.Close() })}, nil
	}
}

func onlyLoopback(_ context.Context, _, address string, _ syscall.RawConn) error {
	host, _, err := net.SplitHostPort(address)
	if ip := net.ParseIP(host); err != nil || ip == nil || !ip.IsLoopback() {
		return fmt.Errorf("%s is not loopback", address)
	}
	return nil
}

// lasting is a connection that ends with its session.
type lasting struct {
	net.Conn
	forget func() bool
}

// Close implements net.Conn.
func (l *lasting) Close() error {
	l.forget()
	return l.Conn.Close()
}

// responder tells of what goes wrong before the caller and the runtime are joined.
type responder struct{}

// Error implements proxy.ErrorResponder.
func (responder) Error(w http.ResponseWriter, _ *http.Request, err error) { refuse(w, err) }

// logs serves what a container wrote.
func (s *Server) logs(w http.ResponseWriter, r *http.Request) {
	options, err := logOptions(r)
	if err != nil {
		refuse(w, err)
		return
	}
	namespace, pod, container := named(r)
	id, err := s.Pods.Logged(namespace, pod, container, options.Previous)
	if err != nil {
		refuse(w, err)
		return
	}
	_ = http.NewResponseController(w).SetWriteDeadline(time.Time{}) // see bounded
	out := &flushed{w: w}
	stdout, stderr := chosenStreams(options, out)
	err = s.Runtime.Logs(r.Context(), id, options, stdout, stderr)
	if err != nil && !out.begun && r.Context().Err() == nil {
		refuse(w, apierrors.NewBadRequest(err.Error()))
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

// chosenStreams sends what is not asked for nowhere.
func chosenStreams(o *corev1.PodLogOptions, out io.Writer) (stdout, stderr io.Writer) {
	switch {
	case o.Stream != nil && *o.Stream == corev1.LogStreamStdout:
		return out, io.Discard
	case o.Stream != nil && *o.Stream == corev1.LogStreamStderr:
		return io.Discard, out
	}
	return out, out
}

// flushed sends what is written at once: someone may be looking on.
type flushed struct {
	w     http.ResponseWriter
	begun bool
}

// Write implements io.Writer.
func (f *flushed) Write(p []byte) (int, error) {
	if !f.begun {
		f.begun = true
		f.w.Header().Set("Content-Type", "text/plain")
	}
	n, err := f.w.Write(p)
	if err == nil {
		err = http.NewResponseController(f.w).Flush()
	}
	return n, err
}
