package scheduler

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	schedulingcorev1 "k8s.io/component-helpers/scheduling/corev1"
	"k8s.io/component-helpers/scheduling/corev1/nodeaffinity"
	"k8s.io/klog/v2"
)

// The reasons why a pod may not run on a node, in kube-scheduler's words.
const (
	unschedulable = "node(s) were unschedulable"
	notReady      = "node(s) were not ready"
	noMatch       = "node(s) didn't match Pod's node affinity/selector"
	noPorts       = "node(s) didn't have free ports for the requested pod ports"
)

// noNodes is the message for a first pod after the installation.
const noNodes = "no nodes available to schedule pods: install a container runtime, such as containerd (Debian: apt-get install containerd), " +
	"and restart lanyard up, or join a machine with lanyard agent; lanyard exec needs neither"

// requirements are what a pod requires of a node.
type requirements struct {
	tolerations []corev1.Toleration
	affinity    nodeaffinity.RequiredNodeAffinity
	ports       []port
}

func requirementsOf(pod *corev1.Pod) *requirements {
	return &requirements{
		tolerations: pod.Spec.Tolerations, affinity: nodeaffinity.GetRequiredNodeAffinity(pod), ports: portsOf(&pod.Spec),
	}
}

// refusal returns the reason why the pod may not run on the node, or "".
func (r *requirements) refusal(n *node) string {
	if n.object.Spec.Unschedulable && !r.tolerates(&corev1.Taint{Key: corev1.TaintNodeUnschedulable, Effect: corev1.TaintEffectNoSchedule}) {
		return unschedulable
	}
	for i := range n.object.Spec.Taints {
		taint := &n.object.Spec.Taints[i]
		if taint.Effect != corev1.TaintEffectPreferNoSchedule && !r.tolerates(taint) {
			return fmt.Sprintf("node(s) had untolerated taint {%s: %s}", taint.Key, taint.Value)
		}
	}
	if !n.ready {
		return notReady
	}
	if ok, err := r.affinity.Match(n.object); err != nil || !ok {
		return noMatch
	}
	if !n.ports.free(r.ports) {
		return noPorts
	}
	return ""
}

func (r *requirements) tolerates(taint *corev1.Taint) bool {
	return schedulingcorev1.TolerationsTolerateTaint(klog.Background(), r.tolerations, taint, true)
}

// explain returns the message for a pod that no node can run. refusals counts the nodes by reason.
func explain(refusals map[string]int) string {
	if len(refusals) == 0 {
		return noNodes
	}
	total, reasons := 0, make([]string, 0, len(refusals))
	for why, n := range refusals {
		total += n
		reasons = append(reasons, fmt.Sprintf("%d %s", n, why))
	}
	slices.Sort(reasons)
	return fmt.Sprintf("0/%d nodes are available: %s.", total, strings.Join(reasons, ", "))
}

// port is a port of the host that a container uses.
type port struct {
	slot
	ip string // "" means every address
}

type slot struct {
	protocol corev1.Protocol
	number   int32
}

// portsOf returns the host ports of the containers, and of the init containers that keep running beside them.
func portsOf(spec *corev1.PodSpec) []port {
	var ports []port
	add := func(c *corev1.Container) {
		for _, p := range c.Ports {
			if p.HostPort > 0 {
				ports = append(ports, port{slot{cmp.Or(p.Protocol, corev1.ProtocolTCP), p.HostPort}, address(p.HostIP)})
			}
		}
	}
	for i := range spec.Containers {
		add(&spec.Containers[i])
	}
	for i := range spec.InitContainers {
		if c := &spec.InitContainers[i]; c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways {
			add(c)
		}
	}
	return ports
}

func address(ip string) string {
	if ip == "0.0.0.0" || ip == "::" {
		return ""
	}
	return ip
}

// ports counts the uses of each port of one host, by address.
type ports map[slot]map[string]int

func (p ports) add(wanted []port) {
	for _, w := range wanted {
		if p[w.slot] == nil {
			p[w.slot] = map[string]int{}
		}
		p[w.slot][w.ip]++
	}
}

func (p ports) remove(had []port) {
	for _, h := range had {
		if p[h.slot][h.ip]--; p[h.slot][h.ip] <= 0 {
			delete(p[h.slot], h.ip)
		}
		if len(p[h.slot]) == 0 {
			delete(p, h.slot)
		}
	}
}

// free reports whether none of the wanted ports is in use. A port on every address conflicts with the same port on any
// address.
func (p ports) free(wanted []port) bool {
	for _, w := range wanted {
		byAddress := p[w.slot]
		if len(byAddress) == 0 {
			continue
		}
		if w.ip == "" || byAddress[""] > 0 || byAddress[w.ip] > 0 {
			return false
		}
	}
	return true
}
