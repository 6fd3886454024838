package server

import (
	"errors"
	"net/http"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/component-base/metrics"
	"k8s.io/klog/v2"
)

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
