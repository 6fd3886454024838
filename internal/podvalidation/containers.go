package podvalidation

import (
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// eachContainer calls fn for every init and main container; p is the path of the pod's spec.
func (c *checker) eachContainer(p *field.Path, fn func(*corev1.Container, *field.Path)) {
	for i := range c.pod.Spec.InitContainers {
		fn(&c.pod.Spec.InitContainers[i], p.Child("initContainers").Index(i))
	}
	for i := range c.pod.Spec.Containers {
		fn(&c.pod.Spec.Containers[i], p.Child("containers").Index(i))
	}
}

func (c *checker) mainContainers(p *field.Path) {
	list := c.pod.Spec.Containers
	if len(list) == 0 {
		c.required(p, "")
		return
	}
	names, hostPorts := sets.New[string](), sets.New[string]()
	for i := range list {
		ctr, path := &list[i], p.Index(i)
		c.container(ctr, path)
		c.unique(names, path.Child("name"), ctr.Name)
		c.hooksAndProbes(ctr, path)
		c.restartRules(ctr, path)
		c.hostPortsOnce(hostPorts, ctr.Ports, path.Child("ports"))
		if c.pod.Spec.HostNetwork {
			c.hostNetworkPorts(ctr.Ports, path.Child("ports"))
		}
	}
}

func (c *checker) initContainers(p *field.Path) {
	names := sets.New[string]()
	for i := range c.pod.Spec.Containers {
		names.Insert(c.pod.Spec.Containers[i].Name)
	}
	for i := range c.pod.Spec.InitContainers {
		ctr, path := &c.pod.Spec.InitContainers[i], p.Index(i)
		c.container(ctr, path)
		if ctr.Name != "" {
			c.unique(names, path.Child("name"), ctr.Name)
		}
		c.restartRules(ctr, path)
		// Init containers run one after the other, so a port conflicts only with ports of the same container.
		c.hostPortsOnce(sets.New[string](), ctr.Ports, path.Child("ports"))
		if IsSidecar(ctr) {
			c.hooksAndProbes(ctr, path)
		} else {
			c.initOnly(ctr, path)
		}
	}
}

// IsSidecar reports whether an init container keeps running beside the main containers.
func IsSidecar(c *corev1.Container) bool {
	return c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways
}

// initOnly refuses the fields that have no meaning for a container that ends before the main containers start.
func (c *checker) initOnly(ctr *corev1.Container, p *field.Path) {
	for _, f := range []struct {
		name string
		set  bool
	}{
		{"lifecycle", ctr.Lifecycle != nil},
		{"livenessProbe", ctr.LivenessProbe != nil},
		{"readinessProbe", ctr.ReadinessProbe != nil},
		{"startupProbe", ctr.StartupProbe != nil},
	} {
		if f.set {
			c.forbidden(p.Child(f.name), "may not be set for init containers without restartPolicy=Always")
		}
	}
	for i := range ctr.ResizePolicy {
		if policy := ctr.ResizePolicy[i].RestartPolicy; policy == corev1.RestartContainer {
			c.invalid(p.Child("resizePolicy").Index(i).Child("restartPolicy"), policy,
				"must not be set to 'RestartContainer' for non-sidecar initContainers")
		}
	}
}

// container checks the fields that init containers and main containers have in common.
func (c *checker) container(ctr *corev1.Container, p *field.Path) {
	if ctr.Name == "" {
		c.required(p.Child("name"), "")
	} else {
		c.label(p.Child("name"), ctr.Name)
	}
	c.notEmpty(p.Child("image"), ctr.Image)
	if strings.TrimSpace(ctr.Image) != ctr.Image {
		c.invalid(p.Child("image"), ctr.Image, "must not have leading or trailing whitespace")
	}
	requireOneOf(&c.faults, p.Child("terminationMessagePolicy"), ctr.TerminationMessagePolicy,
		corev1.TerminationMessageReadFile, corev1.TerminationMessageFallbackToLogsOnError)
	c.ports(ctr.Ports, p.Child("ports"))
	c.env(ctr.Env, p.Child("env"))
	c.envFrom(ctr.EnvFrom, p.Child("envFrom"))
	c.volumeMounts(ctr, p.Child("volumeMounts"))
	c.volumeDevices(ctr, p.Child("volumeDevices"))
	requireOneOf(&c.faults, p.Child("imagePullPolicy"), ctr.ImagePullPolicy,
		corev1.PullAlways, corev1.PullIfNotPresent, corev1.PullNever)
	c.resources(&ctr.Resources, c.containerResourceName, p.Child("resources"))
	c.resizePolicy(ctr.ResizePolicy, p.Child("resizePolicy"))
	c.securityContext(ctr.SecurityContext, p.Child("securityContext"))
}

func (c *checker) ports(ports []corev1.ContainerPort, p *field.Path) {
	names := sets.New[string]()
	for i := range ports {
		port, path := &ports[i], p.Index(i)
		if port.Name != "" {
			if why := validation.IsValidPortName(port.Name); len(why) > 0 {
				c.invalid(path.Child("name"), port.Name, why...)
			} else {
				c.unique(names, path.Child("name"), port.Name)
			}
		}
		if port.ContainerPort == 0 {
			c.required(path.Child("containerPort"), "")
		} else {
			c.invalid(path.Child("containerPort"), port.ContainerPort, validation.IsValidPortNum(int(port.ContainerPort))...)
		}
		if port.HostPort != 0 {
			c.invalid(path.Child("hostPort"), port.HostPort, validation.IsValidPortNum(int(port.HostPort))...)
		}
		requireOneOf(&c.faults, path.Child("protocol"), port.Protocol,
			corev1.ProtocolSCTP, corev1.ProtocolTCP, corev1.ProtocolUDP)
	}
}

func (c *checker) hostPortsOnce(seen sets.Set[string], ports []corev1.ContainerPort, p *field.Path) {
	for i := range ports {
		if port := &ports[i]; port.HostPort != 0 {
			c.unique(seen, p.Index(i).Child("hostPort"), fmt.Sprintf("%s/%s/%d", port.Protocol, port.HostIP, port.HostPort))
		}
	}
}

func (c *checker) hostNetworkPorts(ports []corev1.ContainerPort, p *field.Path) {
	for i := range ports {
		if ports[i].HostPort != ports[i].ContainerPort {
			c.invalid(p.Index(i).Child("hostPort"), ports[i].HostPort,
				"must match `containerPort` when `hostNetwork` is true")
		}
	}
}

func (c *checker) resizePolicy(list []corev1.ContainerResizePolicy, p *field.Path) {
	seen := sets.New[string]()
	for i, policy := range list {
		c.unique(seen, p.Index(i), string(policy.ResourceName))
		requireOneOf(&c.faults, p, policy.ResourceName, corev1.ResourceCPU, corev1.ResourceMemory)
		requireOneOf(&c.faults, p, policy.RestartPolicy, corev1.NotRequired, corev1.RestartContainer)
		if c.pod.Spec.RestartPolicy == corev1.RestartPolicyNever && policy.RestartPolicy != corev1.NotRequired {
			c.invalid(p, policy.RestartPolicy, "must be 'NotRequired' when `restartPolicy` is 'Never'")
		}
	}
}

const (
	maxRestartRules     = 20
	maxRestartExitCodes = 255
)

// restartRules checks a container's own restart policy and the rules that go with it.
func (c *checker) restartRules(ctr *corev1.Container, p *field.Path) {
	rules, path := ctr.RestartPolicyRules, p.Child("restartPolicyRules")
	optionalOneOf(&c.faults, p.Child("restartPolicy"), ctr.RestartPolicy, corev1.ContainerRestartPolicyAlways,
		corev1.ContainerRestartPolicyNever, corev1.ContainerRestartPolicyOnFailure)
	if ctr.RestartPolicy == nil && len(rules) > 0 {
		c.required(p.Child("restartPolicy"), "must specify restartPolicy when restart rules are used")
	}
	if len(rules) > maxRestartRules {
		c.add(field.TooMany(path, len(rules), maxRestartRules))
	}
	for i := range rules {
		oneOf(&c.faults, path.Index(i).Child("action"), rules[i].Action,
			corev1.ContainerRestartRuleActionRestart, corev1.ContainerRestartRuleActionRestartAllContainers)
		c.exitCodes(rules[i].ExitCodes, path.Index(i).Child("exitCodes"))
	}
}

func (c *checker) exitCodes(on *corev1.ContainerRestartRuleOnExitCodes, p *field.Path) {
	if on == nil {
		c.required(p, "must be specified")
		return
	}
	oneOf(&c.faults, p.Child("operator"), on.Operator,
		corev1.ContainerRestartRuleOnExitCodesOpIn, corev1.ContainerRestartRuleOnExitCodesOpNotIn)
	if len(on.Values) > maxRestartExitCodes {
		c.add(field.TooMany(p.Child("values"), len(on.Values), maxRestartExitCodes))
	}
}

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

// handler is the action of a probe or of a lifecycle hook. One field is set.
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
	c.notEmpty(p.Child("path"), get.Path)
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
