package pod

import (
	corev1 "k8s.io/api/core/v1"
	compbasemetrics "k8s.io/component-base/metrics"

	"lanyard.dev/internal/node/cri"
)

// metrics count nothing unless they are registered.
type metrics struct{ operations *compbasemetrics.CounterVec }

func newMetrics() *metrics {
	return &metrics{operations: compbasemetrics.NewCounterVec(&compbasemetrics.CounterOpts{
		Name: "lanyard_runtime_operations_total", StabilityLevel: compbasemetrics.ALPHA,
		Help: "Operations of the container runtime for the agent, by operation (list, run_sandbox, start_container, pull_image) and result (success, error).",
	}, []string{"operation", "result"})}
}

func (m *metrics) done(operation string, err error) {
	result := "success"
	if err != nil {
		result = "error"
	}
	m.operations.WithLabelValues(operation, result).Inc()
}

func (p *Pods) register(registry compbasemetrics.KubeRegistry) {
	registry.MustRegister(p.metrics.operations)
	registry.CustomMustRegister(&podCollector{
		pods: p,
		phases: compbasemetrics.NewDesc("lanyard_pods",
			"Pods bound to this node, by phase.", []string{"phase"}, nil, compbasemetrics.ALPHA, ""),
		containers: compbasemetrics.NewDesc("lanyard_running_containers",
			"Containers of pods that run on this node.", nil, nil, compbasemetrics.ALPHA, ""),
	})
}

// podCollector counts pods and containers at each collection.
type podCollector struct {
	compbasemetrics.BaseStableCollector
	pods               *Pods
	phases, containers *compbasemetrics.Desc
}

func (c *podCollector) DescribeWithStability(ch chan<- *compbasemetrics.Desc) {
	ch <- c.phases
	ch <- c.containers
}

func (c *podCollector) CollectWithStability(ch chan<- compbasemetrics.Metric) {
	phases, running := c.pods.count()
	for _, phase := range []corev1.PodPhase{corev1.PodPending, corev1.PodRunning, corev1.PodSucceeded, corev1.PodFailed} {
		ch <- compbasemetrics.NewLazyConstMetric(c.phases, compbasemetrics.GaugeValue, float64(phases[phase]), string(phase))
	}
	ch <- compbasemetrics.NewLazyConstMetric(c.containers, compbasemetrics.GaugeValue, float64(running))
}

// count returns the number of pods in each phase, by the status that they have or will have at the authority, and the number
// of running containers.
func (p *Pods) count() (phases map[corev1.PodPhase]int, running int) {
	phases = map[corev1.PodPhase]int{}
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, w := range p.workers {
		pod, gone, observed := w.snapshot()
		for i := range observed.Containers {
			if observed.Containers[i].State == cri.Running {
				running++
			}
		}
		if !gone {
			phases[p.status.latest(pod).Status.Phase]++
		}
	}
	return phases, running
}
