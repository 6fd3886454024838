package auditlog

import (
	"bytes"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"k8s.io/klog/v2"
)

// writeTimeout is how long a write may take before the log counts as failing.
const writeTimeout = 10 * time.Second

// blankLine is as long as a block of the usual file systems. Readers of JSON lines skip it.
var blankLine = append(bytes.Repeat([]byte{' '}, 4096), '\n')

// health is the outcome of the latest write. Its methods never wait, so that a disk that hangs can be reported.
type health struct {
	failed  atomic.Pointer[error]
	writing atomic.Pointer[time.Time] // since when a write is under way
	lost    atomic.Int64              // writes that have failed since the last one that did not
	probing atomic.Bool
}

func (h *health) begin() {
	now := time.Now()
	h.writing.Store(&now)
}

// end notes how a write ended, and logs where that changes what readers of the audit log may rely on.
func (h *health) end(err error) {
	h.writing.Store(nil)
	if err != nil {
		if h.failed.Swap(&err) == nil {
			klog.ErrorS(err, "The audit log cannot be written")
		}
		h.lost.Add(1)
		return
	}
	if h.failed.Swap(nil) != nil {
		klog.ErrorS(nil, "The audit log is written again", "failedWrites", h.lost.Swap(0))
	}
}

func (h *health) failing() bool { return h.failed.Load() != nil }

// err returns why the log is not written, or nil.
func (h *health) err() error {
	if since := h.writing.Load(); since != nil {
		if taken := time.Since(*since); taken > writeTimeout {
			return fmt.Errorf("a write has taken %v", taken.Round(time.Second))
		}
	}
	if err := h.failed.Load(); err != nil {
		return *err
	}
	return nil
}

// Healthy returns an error while events cannot be recorded: the latest write failed, or has been under way for ten
// seconds. It does not wait. After a failure each call starts a new attempt to write, so that a log with few events
// recovers as well.
func (l *Log) Healthy() error {
	err := l.file.health.err()
	if err == nil {
		return nil
	}
	if l.file.health.probing.CompareAndSwap(false, true) {
		go func() {
			defer l.file.health.probing.Store(false)
			l.file.probe()
		}()
	}
	return errors.New("the audit log cannot be written: requests may go unrecorded")
}
