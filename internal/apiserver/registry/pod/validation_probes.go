package pod

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

func (c *checker) hooksAndProbes(ctr *corev1.Container, p *field.Path) {
	if ctr.Lifecycle != nil {
		c.lifecycle(ctr.Lifecycle, p.Child("lifecycle"))
	}
	if probe, path := ctr.LivenessProbe, p.Child("livenessProbe"); probe != nil {
		c.probe(probe, path)
		c.succeedsAtOnce(probe, path)
	}
	if probe, path := ctr.ReadinessProbe, p.Child("readinessProbe"); probe != nil {
		c.probe(probe, path)
		if probe.TerminationGracePeriodSeconds != nil {
			c.invalid(path.Child("terminationGracePeriodSeconds"), *probe.TerminationGracePeriodSeconds,
				"must not be set for readinessProbes")
		}
	}
	if probe, path := ctr.StartupProbe, p.Child("startupProbe"); probe != nil {
		c.probe(probe, path)
		c.succeedsAtOnce(probe, path)
	}
}

func (c *checker) succeedsAtOnce(probe *corev1.Probe, p *field.Path) {
	if probe.SuccessThreshold != 1 {
		c.invalid(p.Child("successThreshold"), probe.SuccessThreshold, "must be 1")
	}
}

func (c *checker) probe(probe *corev1.Probe, p *field.Path) {
	c.handler(handler{exec: probe.Exec, http: probe.HTTPGet, tcp: probe.TCPSocket, grpc: probe.GRPC}, p)
	c.nonNegative(p.Child("initialDelaySeconds"), int64(probe.InitialDelaySeconds))
	c.nonNegative(p.Child("timeoutSeconds"), int64(probe.TimeoutSeconds))
	c.nonNegative(p.Child("periodSeconds"), int64(probe.PeriodSeconds))
	c.nonNegative(p.Child("successThreshold"), int64(probe.SuccessThreshold))
	c.nonNegative(p.Child("failureThreshold"), int64(probe.FailureThreshold))
	if s := probe.TerminationGracePeriodSeconds; s != nil && *s <= 0 {
		c.invalid(p.Child("terminationGracePeriodSeconds"), *s, "must be greater than 0")
	}
}

func (c *checker) lifecycle(l *corev1.Lifecycle, p *field.Path) {
	if h := l.PostStart; h != nil {
		c.handler(handler{exec: h.Exec, http: h.HTTPGet, tcp: h.TCPSocket, sleep: h.Sleep}, p.Child("postStart"))
	}
	if h := l.PreStop; h != nil {
		c.handler(handler{exec: h.Exec, http: h.HTTPGet, tcp: h.TCPSocket, sleep: h.Sleep}, p.Child("preStop"))
	}
	if l.StopSignal != nil {
		c.stopSignal(*l.StopSignal, p.Child("stopSignal"))
	}
}

func (c *checker) stopSignal(signal corev1.Signal, p *field.Path) {
	os := c.pod.Spec.OS
	switch {
	case os == nil:
		c.forbidden(p, "may not be set for containers with empty `spec.os.name`")
	case os.Name == corev1.Windows:
		oneOf(&c.faults, p, signal, corev1.SIGKILL, corev1.SIGTERM)
	}
}

// handler is any of the ways in which a node can act on a container.
type handler struct {
	exec  *corev1.ExecAction
	http  *corev1.HTTPGetAction
	tcp   *corev1.TCPSocketAction
	grpc  *corev1.GRPCAction
	sleep *corev1.SleepAction
}

func (c *checker) handler(h handler, p *field.Path) {
	found := false
	for _, kind := range []struct {
		name  string
		set   bool
		check func(*field.Path)
	}{
		{"exec", h.exec != nil, func(p *field.Path) { c.execAction(h.exec, p) }},
		{"httpGet", h.http != nil, func(p *field.Path) { c.httpGet(h.http, p) }},
		{"tcpSocket", h.tcp != nil, func(p *field.Path) { c.portRef(h.tcp.Port, p.Child("port")) }},
		{"grpc", h.grpc != nil, func(p *field.Path) { c.grpcAction(h.grpc, p) }},
		{"sleep", h.sleep != nil, func(p *field.Path) { c.sleep(h.sleep, p) }},
	} {
		if !kind.set {
			continue
		}
		if found {
			c.forbidden(p.Child(kind.name), "may not specify more than 1 handler type")
			continue
		}
		found = true
		kind.check(p.Child(kind.name))
	}
	if !found {
		c.required(p, "must specify a handler type")
	}
}

func (c *checker) execAction(exec *corev1.ExecAction, p *field.Path) {
	if len(exec.Command) == 0 {
		c.required(p.Child("command"), "")
	}
}

func (c *checker) httpGet(get *corev1.HTTPGetAction, p *field.Path) {
	c.text(p.Child("path"), get.Path)
	c.portRef(get.Port, p.Child("port"))
	oneOf(&c.faults, p.Child("scheme"), get.Scheme, corev1.URISchemeHTTP, corev1.URISchemeHTTPS)
	for i := range get.HTTPHeaders {
		name := get.HTTPHeaders[i].Name
		c.invalid(p.Child("httpHeaders"), name, validation.IsHTTPHeaderName(name)...)
	}
	optionalOneOf(&c.faults, p.Child("protocol"), get.Protocol, corev1.HTTPProtocolHTTP1, corev1.HTTPProtocolHTTP2)
}

func (c *checker) grpcAction(action *corev1.GRPCAction, p *field.Path) {
	c.portRef(intstr.FromInt32(action.Port), p.Child("port"))
	optionalOneOf(&c.faults, p.Child("mode"), action.Mode, corev1.GRPCProbeModePlaintext, corev1.GRPCProbeModeTLS)
}

func (c *checker) portRef(port intstr.IntOrString, p *field.Path) {
	switch port.Type {
	case intstr.Int:
		c.invalid(p, port.IntValue(), validation.IsValidPortNum(port.IntValue())...)
	case intstr.String:
		c.invalid(p, port.StrVal, validation.IsValidPortName(port.StrVal)...)
	default:
		c.add(field.InternalError(p, fmt.Errorf("unknown type: %v", port.Type)))
	}
}

func (c *checker) sleep(sleep *corev1.SleepAction, p *field.Path) {
	grace := c.pod.Spec.TerminationGracePeriodSeconds
	if grace != nil && (sleep.Seconds < 0 || sleep.Seconds > *grace) {
		c.invalid(p, sleep.Seconds,
			fmt.Sprintf("must be non-negative and less than terminationGracePeriodSeconds (%d)", *grace))
	}
}
