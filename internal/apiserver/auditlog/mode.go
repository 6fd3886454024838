package auditlog

import (
	"slices"

	auditinternal "k8s.io/apiserver/pkg/apis/audit"
	"k8s.io/apiserver/pkg/audit"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/apiserver/pkg/server/options"
	"k8s.io/apiserver/plugin/pkg/audit/buffered"

	"lanyard.dev/internal/apiserver/outage"
)

// The modes are kube-apiserver's.
const (
	// Blocking writes an event before the request that it is about goes on. A request whose event cannot be written goes
	// on all the same. It is the default.
	Blocking = options.ModeBlocking
	// Batch writes events in the background. Those that come faster than they are written are dropped.
	Batch = options.ModeBatch
	// BlockingStrict is Blocking, but a request fails if the event of its arrival cannot be written.
	BlockingStrict = options.ModeBlockingStrict
)

// Modes lists every mode.
var Modes = []string{Blocking, Batch, BlockingStrict}

// batchBuffer is how many events may wait to be written, as in kube-apiserver.
const batchBuffer = 10000

// inMode makes backend wait, or not, for what it writes.
func inMode(mode string, backend audit.Backend) audit.Backend {
	switch mode {
	case BlockingStrict:
		return backend
	case Batch:
		// Collecting events before they are written gains nothing in a file.
		return buffered.NewBackend(backend, buffered.BatchConfig{BufferSize: batchBuffer, MaxBatchSize: 1})
	}
	return lenient{backend}
}

// lenient lets requests go on whose events cannot be written.
type lenient struct{ audit.Backend }

// ProcessEvents implements audit.Sink.
func (l lenient) ProcessEvents(events ...*auditinternal.Event) bool {
	l.Backend.ProcessEvents(events...)
	return true
}

// withArrivals records the arrival of every request of which anything is recorded, whatever stages the policy omits. In
// mode BlockingStrict that event is what a request fails for; without it the mode would have no effect.
//
// Health checks never fail for it: a supervisor would restart a live server for a full disk, and /readyz would not say
// why it is not ready.
type withArrivals struct{ audit.PolicyRuleEvaluator }

// EvaluatePolicyRule implements audit.PolicyRuleEvaluator.
func (w withArrivals) EvaluatePolicyRule(attributes authorizer.Attributes) audit.RequestAuditConfig {
	config := w.PolicyRuleEvaluator.EvaluatePolicyRule(attributes)
	if !attributes.IsResourceRequest() && outage.IsHealthCheck(attributes.GetPath()) {
		if !slices.Contains(config.OmitStages, auditinternal.StageRequestReceived) {
			config.OmitStages = append(slices.Clone(config.OmitStages), auditinternal.StageRequestReceived)
		}
		return config
	}
	config.OmitStages = slices.DeleteFunc(slices.Clone(config.OmitStages), func(stage auditinternal.Stage) bool {
		return stage == auditinternal.StageRequestReceived
	})
	return config
}
