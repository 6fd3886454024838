package server

import (
	"io"
	"net/http"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"lanyard.dev/internal/podoptions"
)

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
