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
	// Blocking writes an event before its request continues. If the event cannot be written, the request continues
	// nevertheless. It is the default.
	Blocking = options.ModeBlocking
	// Batch writes events in the background. If events come faster than they are written, some are dropped.
	Batch = options.ModeBatch
	// BlockingStrict is like Blocking, but a request fails if the event of its arrival cannot be written.
	BlockingStrict = options.ModeBlockingStrict
)

// Modes lists every mode.
var Modes = []string{Blocking, Batch, BlockingStrict}

// batchBuffer is how many events may wait to be written in mode Batch, as in kube-apiserver.
const batchBuffer = 10000

// inMode returns a backend that writes events in a mode.
func inMode(mode string, backend audit.Backend) audit.Backend {
	switch mode {
	case BlockingStrict:
		return backend
	case Batch:
		// Writing several events at once has no advantage with a file.
		return buffered.NewBackend(backend, buffered.BatchConfig{BufferSize: batchBuffer, MaxBatchSize: 1})
	}
	return lenient{backend}
}

// lenient lets a request continue if its event cannot be written.
type lenient struct{ audit.Backend }

// ProcessEvents implements audit.Sink.
func (l lenient) ProcessEvents(events ...*auditinternal.Event) bool {
	l.Backend.ProcessEvents(events...)
	return true
}

// recordArrivals records the arrival of every request that is recorded at all, even if the policy omits that stage. In mode
// BlockingStrict a request fails if this event cannot be written; without the event, the mode would have no effect.
//
// Health checks do not fail for this reason. Otherwise a supervisor would restart a live server because a disk is full, and
// /readyz could not report why the server is not ready.
type recordArrivals struct{ audit.PolicyRuleEvaluator }

// EvaluatePolicyRule implements audit.PolicyRuleEvaluator.
func (r recordArrivals) EvaluatePolicyRule(attributes authorizer.Attributes) audit.RequestAuditConfig {
	config := r.PolicyRuleEvaluator.EvaluatePolicyRule(attributes)
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
