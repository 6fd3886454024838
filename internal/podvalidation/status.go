package podvalidation

import (
	corev1 "k8s.io/api/core/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	netutils "k8s.io/utils/net"

	"lanyard.dev/internal/podannotation"
)

// ValidateStatusUpdate returns the faults of an update of a pod's status. Only the status and the metadata of updated are
// checked.
func ValidateStatusUpdate(updated, old *corev1.Pod) field.ErrorList {
	c := newChecker(updated)
	meta, status := field.NewPath("metadata"), field.NewPath("status")
	c.add(apivalidation.ValidateObjectMetaUpdate(&updated.ObjectMeta, &old.ObjectMeta, meta)...)
	c.finalizers(meta.Child("finalizers"))
	kept := fixedAnnotation
	if podannotation.IsProcess(old) {
		kept = processAnnotation
	}
	c.annotationsUnchanged(kept, old.Annotations, meta.Child("annotations"))
	c.annotations(meta.Child("annotations"))
	if updated.Spec.NodeName != old.Spec.NodeName {
		c.forbidden(status.Child("nodeName"), "may not be changed directly")
	}
	if name := updated.Status.NominatedNodeName; name != old.Status.NominatedNodeName {
		c.optionalSubdomain(status.Child("nominatedNodeName"), name)
	}
	c.add(apivalidation.ValidateImmutableField(updated.Status.QOSClass, old.Status.QOSClass, status.Child("qosClass"))...)
	c.conditions(status.Child("conditions"))
	c.containersStayEnded(old, status)
	c.addresses(old, status)
	c.claimStatuses(status.Child("resourceClaimStatuses"))
	return c.list
}

func (c *checker) conditions(p *field.Path) {
	for i := range c.pod.Status.Conditions {
		t := string(c.pod.Status.Conditions[i].Type)
		c.invalid(p.Index(i).Child("Type"), t, validation.IsQualifiedName(t)...)
	}
}

// containersStayEnded refuses a status in which a container runs again that has ended and must not be restarted.
func (c *checker) containersStayEnded(old *corev1.Pod, p *field.Path) {
	own := map[string]*corev1.Container{}
	c.eachContainer(p, func(ctr *corev1.Container, _ *field.Path) { own[ctr.Name] = ctr })
	policy := old.Spec.RestartPolicy
	mayRestart := func(s *corev1.ContainerStatus) bool {
		if ctr := own[s.Name]; ctr != nil && ctr.RestartPolicy != nil {
			return restartsAfter(string(*ctr.RestartPolicy), s) || len(ctr.RestartPolicyRules) > 0
		}
		return restartsAfter(string(policy), s)
	}
	never := func(*corev1.ContainerStatus) bool { return false }
	now, was := &c.pod.Status, &old.Status
	c.stayEnded(now.ContainerStatuses, was.ContainerStatuses, mayRestart, p.Child("containerStatuses"))
	c.stayEnded(now.InitContainerStatuses, was.InitContainerStatuses, mayRestart, p.Child("initContainerStatuses"))
	c.stayEnded(now.EphemeralContainerStatuses, was.EphemeralContainerStatuses, never, p.Child("ephemeralContainerStatuses"))
}

// restartsAfter reports whether a restart policy restarts a container that ended with the status s.
func restartsAfter(policy string, s *corev1.ContainerStatus) bool {
	switch policy {
	case string(corev1.RestartPolicyAlways):
		return true
	case string(corev1.RestartPolicyOnFailure):
		return s.State.Terminated.ExitCode != 0
	}
	return false
}

func (c *checker) stayEnded(now, was []corev1.ContainerStatus, mayRestart func(*corev1.ContainerStatus) bool, p *field.Path) {
	alive := sets.New[string]()
	for i := range now {
		if now[i].State.Terminated == nil {
			alive.Insert(now[i].Name)
		}
	}
	for i := range was {
		if s := &was[i]; s.State.Terminated != nil && alive.Has(s.Name) && !mayRestart(s) {
			c.forbidden(p.Index(i).Child("state"), "may not be transitioned to non-terminated state")
		}
	}
}

// addresses checks the addresses of the pod and of its host: at most one for each IP family, the primary one first.
func (c *checker) addresses(old *corev1.Pod, p *field.Path) {
	var pod, podWas, host, hostWas []string
	for _, ip := range c.pod.Status.PodIPs {
		pod = append(pod, ip.IP)
	}
	for _, ip := range old.Status.PodIPs {
		podWas = append(podWas, ip.IP)
	}
	for _, ip := range c.pod.Status.HostIPs {
		host = append(host, ip.IP)
	}
	for _, ip := range old.Status.HostIPs {
		hostWas = append(hostWas, ip.IP)
	}
	c.ips(pod, podWas, p.Child("podIPs"))
	if len(host) > 0 && host[0] != c.pod.Status.HostIP {
		c.invalid(p.Child("hostIPs").Index(0).Child("ip"), host[0], "must be equal to `hostIP`")
	}
	c.ips(host, hostWas, p.Child("hostIPs"))
}

func (c *checker) ips(list, was []string, p *field.Path) {
	before := len(c.list)
	for i, ip := range list {
		c.add(validation.IsValidIPForLegacyField(p.Index(i), ip, true, was)...)
	}
	seen := sets.New[string]()
	for i, ip := range list {
		c.unique(seen, p.Index(i), ip)
	}
	if len(list) < 2 || len(c.list) > before {
		return
	}
	if dual, err := netutils.IsDualStackIPStrings(list); err != nil || !dual || len(list) > 2 {
		c.invalid(p, list, "may specify no more than one IP for each IP family")
	}
}

func (c *checker) claimStatuses(p *field.Path) {
	seen := sets.New[string]()
	for i, s := range c.pod.Status.ResourceClaimStatuses {
		path := p.Index(i).Child("name")
		if !c.claims.Has(s.Name) {
			c.invalid(path, s.Name, "must match the name of an entry in `spec.resourceClaims`")
		}
		c.unique(seen, path, s.Name)
		if s.ResourceClaimName != nil {
			c.subdomain(path, *s.ResourceClaimName)
		}
	}
}

// ValidateBinding returns the faults of a binding of a pod to a node.
func ValidateBinding(b *corev1.Binding) field.ErrorList {
	var f faults
	target := field.NewPath("target")
	if b.Target.Kind != "" && b.Target.Kind != "Node" {
		f.add(field.NotSupported(target.Child("kind"), b.Target.Kind, []string{"Node", "<empty>"}))
	}
	f.notEmpty(target.Child("name"), b.Target.Name)
	return f.list
}
