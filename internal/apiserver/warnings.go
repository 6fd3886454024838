package apiserver

import (
	"net/http"
	"sync"

	utilnet "k8s.io/apimachinery/pkg/util/net"
	"k8s.io/apiserver/pkg/endpoints/responsewriter"
	"k8s.io/apiserver/pkg/warning"
)

const (
	// These bound the warnings of one answer, because clients bound the size of headers.
	maxWarningBytes = 4 << 10
	maxWarnings     = 64

	miscPersistentWarning = 299 // RFC 7234 section 5.5
)

// withWarnings adds the warnings that handlers record to the Warning headers of the answer. When the time of a request
// is up, handlers leave work behind in other goroutines, which may still record warnings. So warnings are kept apart
// from the headers until the goroutine that writes the answer begins to do so. Later ones are dropped.
func withWarnings(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		recorder := &warnings{}
		writer := &warningWriter{ResponseWriter: w, warnings: recorder}
		ctx := warning.WithWarningRecorder(r.Context(), recorder)
		h.ServeHTTP(responsewriter.WrapForHTTP1Or2(writer), r.WithContext(ctx))
		recorder.take()
	})
}

// warnings records the warnings of one request, without duplicates, until they are taken.
type warnings struct {
	mu    sync.Mutex
	taken bool
	size  int
	texts []string // as header values
	seen  map[string]bool
}

// AddWarning implements warning.Recorder.
func (w *warnings) AddWarning(agent, text string) {
	if text == "" {
		return
	}
	if agent == "" {
		agent = "-"
	}
	header, err := utilnet.NewWarningHeader(miscPersistentWarning, agent, text)
	if err != nil {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.taken || w.seen[header] || len(w.texts) == maxWarnings || w.size+len(header) > maxWarningBytes {
		return
	}
	if w.seen == nil {
		w.seen = map[string]bool{}
	}
	w.seen[header] = true
	w.size += len(header)
	w.texts = append(w.texts, header)
}

// take returns the warnings. Later ones are not recorded.
func (w *warnings) take() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	texts := w.texts
	w.taken, w.texts = true, nil
	return texts
}

// warningWriter writes the warnings into the headers when the answer begins.
type warningWriter struct {
	http.ResponseWriter
	warnings *warnings
	begun    bool
}

var _ responsewriter.UserProvidedDecorator = &warningWriter{}

// Unwrap implements responsewriter.UserProvidedDecorator.
func (w *warningWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// WriteHeader implements http.ResponseWriter.
func (w *warningWriter) WriteHeader(status int) {
	w.begin()
	w.ResponseWriter.WriteHeader(status)
}

// Write implements http.ResponseWriter.
func (w *warningWriter) Write(p []byte) (int, error) {
	w.begin()
	return w.ResponseWriter.Write(p)
}

func (w *warningWriter) begin() {
	if w.begun {
		return
	}
	w.begun = true
	for _, text := range w.warnings.take() {
		w.Header().Add("Warning", text)
	}
}
