package pod

import (
	corev1 "k8s.io/api/core/v1"
	compbasemetrics "k8s.io/component-base/metrics"

	"lanyard.dev/internal/node/cri"
)

// Registry is where metrics are registered. Every KubeRegistry of component-base is one.
type Registry interface {
	MustRegister(...compbasemetrics.Registerable)
	CustomMustRegister(...compbasemetrics.StableCollector)
}

// metrics count nothing until they are registered.
type metrics struct{ operations *compbasemetrics.CounterVec }

func newMetrics() *metrics {
	return &metrics{operations: compbasemetrics.NewCounterVec(&compbasemetrics.CounterOpts{
		Name: "lanyard_runtime_operations_total", StabilityLevel: compbasemetrics.ALPHA,
		Help: "What the agent had the container runtime do, by operation (list, run_sandbox, start_container, pull_image) and result (success, error).",
	}, []string{"operation", "result"})}
}

func (m *metrics) done(operation string, err error) {
	result := "success"
	if err != nil {
		result = "error"
	}
	m.operations.WithLabelValues(operation, result).Inc()
}

// Register makes the metrics part of a registry. It belongs before Run, and may be called once.
func (p *Pods) Register(registry Registry) {
	registry.MustRegister(p.metrics.operations)
	registry.CustomMustRegister(&census{
		pods: p,
		phases: compbasemetrics.NewDesc("lanyard_pods",
			"Pods bound to this node, by phase.", []string{"phase"}, nil, compbasemetrics.ALPHA, ""),
		containers: compbasemetrics.NewDesc("lanyard_running_containers",
			"Containers of pods that run on this node.", nil, nil, compbasemetrics.ALPHA, ""),
	})
}

// census is taken when it is asked for.
type census struct {
	compbasemetrics.BaseStableCollector
	pods               *Pods
	phases, containers *compbasemetrics.Desc
}

func (c *census) DescribeWithStability(ch chan<- *compbasemetrics.Desc) {
	ch <- c.phases
	ch <- c.containers
}

func (c *census) CollectWithStability(ch chan<- compbasemetrics.Metric) {
	phases, running := c.pods.count()
	for _, phase := range []corev1.PodPhase{corev1.PodPending, corev1.PodRunning, corev1.PodSucceeded, corev1.PodFailed} {
		ch <- compbasemetrics.NewLazyConstMetric(c.phases, compbasemetrics.GaugeValue, float64(phases[phase]), string(phase))
	}
	ch <- compbasemetrics.NewLazyConstMetric(c.containers, compbasemetrics.GaugeValue, float64(running))
}

// count returns how many pods are in which phase, by the status that they have, or are to have, at the authority.
func (p *Pods) count() (phases map[corev1.PodPhase]int, running int) {
	phases = map[corev1.PodPhase]int{}
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, w := range p.workers {
		pod, gone, held := w.look()
		for i := range held.Containers {
			if held.Containers[i].State == cri.Running {
				running++
			}
		}
		if !gone {
			phases[p.status.latest(pod).Status.Phase]++
		}
	}
	return phases, running
}
