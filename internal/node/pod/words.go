package pod

import (
	"bytes"
	"context"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/ptr"

	"lanyard.dev/internal/node/cri"
)

// Kubernetes' bounds on what containers say as they end.
const (
	longestWords     = 4096
	longestWordsOf   = 12 * 1024 // of all containers of a pod
	fallbackLogLines = 80
	fallbackLogBytes = 2048
)

// lastWords returns what a run left in its termination log, or, where it failed and the pod wants that, the end of its
// log. What was found is remembered; it does not change any more.
func (w *worker) lastWords(ctx context.Context, pod *corev1.Pod, c *corev1.Container, run *cri.Container) string {
	if words, ok := w.messages[run.ID]; ok {
		return words
	}
	limit := int64(min(longestWords, longestWordsOf/max(len(containersOf(pod)), 1)))
	var words string
	if c.TerminationMessagePath != "" {
		words = w.files.readTermination(w.uid, run.Name, run.Attempt, limit)
	}
	failed := run.ExitCode != 0 || run.Reason == "OOMKilled"
	if words == "" && failed && c.TerminationMessagePolicy == corev1.TerminationMessageFallbackToLogsOnError {
		words = w.endOfLog(ctx, run.ID, min(limit, fallbackLogBytes))
	}
	w.messages[run.ID] = words
	return words
}

// endOfLog returns at most limit bytes of the end of a run's log, "" where it cannot be read.
func (w *worker) endOfLog(ctx context.Context, id string, limit int64) string {
	tail := &ending{limit: int(limit)}
	options := &corev1.PodLogOptions{TailLines: ptr.To[int64](fallbackLogLines)}
	if err := w.Runtime.Logs(ctx, id, options, tail, tail); err != nil {
		w.logFailure(ctx, "read the end of a container's log", err)
		return ""
	}
	return string(bytes.ToValidUTF8(tail.data, []byte("\uFFFD")))
}

// ending keeps the end of what is written to it.
type ending struct {
	data  []byte
	limit int
}

func (e *ending) Write(p []byte) (int, error) {
	e.data = append(e.data, p...)
	if over := len(e.data) - e.limit; over > 0 {
		e.data = append(e.data[:0], e.data[over:]...)
	}
	return len(p), nil
}
