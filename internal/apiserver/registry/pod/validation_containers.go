package pod

import (
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
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
		c.once(names, path.Child("name"), ctr.Name)
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
			c.once(names, path.Child("name"), ctr.Name)
		}
		c.restartRules(ctr, path)
		// Init containers run one after the other, so a port conflicts only with those of the same container.
		c.hostPortsOnce(sets.New[string](), ctr.Ports, path.Child("ports"))
		if isSidecar(ctr) {
			c.hooksAndProbes(ctr, path)
		} else {
			c.initOnly(ctr, path)
		}
	}
}

// initOnly refuses what makes no sense for a container that runs to its end before the others start.
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

// container checks what holds for containers of every kind.
func (c *checker) container(ctr *corev1.Container, p *field.Path) {
	if ctr.Name == "" {
		c.required(p.Child("name"), "")
	} else {
		c.label(p.Child("name"), ctr.Name)
	}
	c.text(p.Child("image"), ctr.Image)
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
				c.once(names, path.Child("name"), port.Name)
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
			c.once(seen, p.Index(i).Child("hostPort"), fmt.Sprintf("%s/%s/%d", port.Protocol, port.HostIP, port.HostPort))
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
		c.once(seen, p.Index(i), string(policy.ResourceName))
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
