package podvalidation

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"
)

// stored returns a pod with defaults, as it is after it was stored.
func stored(mutate func(*corev1.Pod)) *corev1.Pod {
	pod := defaulted(mutate)
	pod.UID, pod.ResourceVersion = "u", "1"
	return pod
}

func TestValidateUpdate(t *testing.T) {
	t.Parallel()
	gates := func(names ...string) func(*corev1.Pod) {
		return spec(func(s *corev1.PodSpec) {
			s.SchedulingGates = nil
			for _, name := range names {
				s.SchedulingGates = append(s.SchedulingGates, corev1.PodSchedulingGate{Name: name})
			}
		})
	}
	tolerate := func(keys ...string) func(*corev1.Pod) {
		return spec(func(s *corev1.PodSpec) {
			s.Tolerations = nil
			for _, key := range keys {
				s.Tolerations = append(s.Tolerations, corev1.Toleration{Key: key, Operator: "Exists", Effect: "NoExecute"})
			}
		})
	}
	deadline := func(seconds *int64) func(*corev1.Pod) {
		return spec(func(s *corev1.PodSpec) { s.ActiveDeadlineSeconds = seconds })
	}
	grace := func(seconds int64) func(*corev1.Pod) {
		return spec(func(s *corev1.PodSpec) { s.TerminationGracePeriodSeconds = &seconds })
	}
	pick := func(pairs map[string]string) func(*corev1.Pod) {
		return spec(func(s *corev1.PodSpec) { s.NodeSelector = pairs })
	}
	zone := func(values ...string) func(*corev1.Pod) {
		return spec(func(s *corev1.PodSpec) {
			var terms []corev1.NodeSelectorRequirement
			for _, v := range values {
				terms = append(terms, corev1.NodeSelectorRequirement{Key: "zone", Operator: "In", Values: []string{v}})
			}
			s.Affinity = &corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{RequiredDuringSchedulingIgnoredDuringExecution: &corev1.NodeSelector{
				NodeSelectorTerms: []corev1.NodeSelectorTerm{{MatchExpressions: terms}}}}}
		})
	}
	image := main(func(c *corev1.Container) { c.Image = "registry.example/web:2" })
	const other = "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,"
	for _, c := range []struct {
		name          string
		before, after func(*corev1.Pod)
		path          string // "" if the update is accepted
		kind          field.ErrorType
		text          string
	}{
		{name: "nothing"},
		{name: "image", after: image},
		{name: "labels and annotations", after: func(p *corev1.Pod) { p.Labels = map[string]string{"a": "b"} }},
		{name: "toleration added", before: tolerate("a"), after: tolerate("a", "b")},
		{name: "toleration shortened", before: tolerate("a"), after: both(tolerate("a"), spec(func(s *corev1.PodSpec) { s.Tolerations[0].TolerationSeconds = ptr.To[int64](3) }))},
		{name: "deadline set", after: deadline(ptr.To[int64](5))},
		{name: "deadline shrinks", before: deadline(ptr.To[int64](5)), after: deadline(ptr.To[int64](4))},
		{name: "negative grace to one", before: grace(-1), after: grace(1)},
		{name: "gate removed", before: gates("a", "b"), after: gates("b")},
		{name: "gated node selector", before: gates("a"), after: both(gates("a"), pick(map[string]string{"x": "y"}))},
		{name: "gated affinity set", before: gates("a"), after: both(gates("a"), zone("a"))},
		{name: "gated affinity narrowed", before: both(gates("a"), zone("a")), after: both(gates("a"), zone("a", "b"))},

		{"account", nil, spec(func(s *corev1.PodSpec) { s.ServiceAccountName = "admin" }), "spec", field.ErrorTypeForbidden, other},
		{"node", nil, spec(func(s *corev1.PodSpec) { s.NodeName = "n" }), "spec", field.ErrorTypeForbidden, other},
		{"volume", nil, volume(corev1.VolumeSource{}), "spec", field.ErrorTypeForbidden, `"data"`},
		{"container added", nil, spec(func(s *corev1.PodSpec) {
			s.Containers = append(s.Containers, corev1.Container{Name: "b", Image: "i"})
		}), "spec.containers", field.ErrorTypeForbidden, "may not add or remove containers"},
		{"init container added", nil, spec(func(s *corev1.PodSpec) { s.InitContainers = []corev1.Container{{Name: "b", Image: "i"}} }), "spec.initContainers", field.ErrorTypeForbidden, "may not add or remove containers"},
		{"image emptied", nil, main(func(c *corev1.Container) { c.Image = "" }), "spec.containers[0].image", field.ErrorTypeRequired, ""},
		{"toleration removed", tolerate("a", "b"), tolerate("a"), "spec.tolerations", field.ErrorTypeForbidden, "existing toleration can not be modified"},
		{"deadline grows", deadline(ptr.To[int64](5)), deadline(ptr.To[int64](6)), "spec.activeDeadlineSeconds", field.ErrorTypeInvalid, "must be less than or equal to previous value"},
		{"deadline removed", deadline(ptr.To[int64](5)), nil, "spec.activeDeadlineSeconds", field.ErrorTypeInvalid, "must not update from a positive integer to nil value"},
		{"grace", nil, grace(1), "spec", field.ErrorTypeForbidden, other},
		{"gate added", nil, gates("a"), "spec.schedulingGates[0].name", field.ErrorTypeForbidden, "only deletion is allowed, but found new scheduling gate 'a'"},
		{"node selector", nil, pick(map[string]string{"x": "y"}), "spec", field.ErrorTypeForbidden, other},
		{"gated node selector changed", both(gates("a"), pick(map[string]string{"x": "y"})), both(gates("a"), pick(map[string]string{"x": "z"})), "spec.nodeSelector", field.ErrorTypeInvalid, "only additions"},
		{"gated affinity widened", both(gates("a"), zone("a", "b")), both(gates("a"), zone("a")), "spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[0]", field.ErrorTypeInvalid, "only additions are allowed"},
		{"gated affinity removed", both(gates("a"), zone("a")), gates("a"), "spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms", field.ErrorTypeInvalid, "no additions/deletions"},
		{"uid", nil, func(p *corev1.Pod) { p.UID = "v" }, "metadata.uid", field.ErrorTypeInvalid, "field is immutable"},
		{"mirror annotation", nil, func(p *corev1.Pod) { p.Annotations = map[string]string{corev1.MirrorPodAnnotationKey: ""} }, "metadata.annotations[kubernetes.io/config.mirror]", field.ErrorTypeForbidden, "may not add mirror pod annotation"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			before, after := stored(c.before), stored(nil)
			if c.after != nil {
				uid := after.UID
				after = minimal()
				after.UID, after.ResourceVersion = uid, "1"
				c.after(after)
				SetDefaults(after)
			}
			errs := ValidateUpdate(after, before)
			if c.path != "" {
				refusal{path: c.path, kind: c.kind, text: c.text}.check(t, errs)
			} else if len(errs) > 0 {
				t.Errorf("refused: %v", errs.ToAggregate())
			}
		})
	}
}

func TestDiffHidesSecrets(t *testing.T) {
	t.Parallel()
	secret := main(func(c *corev1.Container) {
		c.Env = []corev1.EnvVar{{Name: "PASSWORD", Value: "s3cr3t"}}
		c.Args = []string{"--token=s3cr3t"}
		c.LivenessProbe = httpProbe()
		c.LivenessProbe.HTTPGet.HTTPHeaders = []corev1.HTTPHeader{{Name: "Authorization", Value: "s3cr3t"}}
		c.Lifecycle = &corev1.Lifecycle{PreStop: &corev1.LifecycleHandler{Exec: &corev1.ExecAction{Command: []string{"s3cr3t"}}}}
	})
	for name, pair := range map[string][2]*corev1.Pod{
		"added":   {stored(nil), stored(secret)},
		"removed": {stored(secret), stored(nil)},
		"changed": {stored(secret), stored(both(secret, main(func(c *corev1.Container) { c.Env[0].Value = "s3cr3t2" })))},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			text := ValidateUpdate(pair[1], pair[0]).ToAggregate().Error()
			if strings.Contains(text, "s3cr3t") {
				t.Errorf("a secret is in %s", text)
			}
			if !strings.Contains(text, "not shown") {
				t.Errorf("no difference is in %s", text)
			}
		})
	}
}

func TestDiffOfLargeSpecsNamesFields(t *testing.T) {
	t.Parallel()
	old, updated := large(200), large(200)
	updated.Spec.Containers[7].WorkingDir, updated.Spec.NodeName = "/", "n"
	refusal{path: "spec", kind: field.ErrorTypeForbidden, text: "these differ: spec.containers, spec.nodeName"}.
		check(t, ValidateUpdate(updated, old))
}

func TestValidateStatusUpdate(t *testing.T) {
	t.Parallel()
	ended := func(code int32) func(*corev1.Pod) {
		return func(p *corev1.Pod) {
			p.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "main",
				State: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: code}}}}
		}
	}
	running := func(p *corev1.Pod) {
		p.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "main",
			State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: metav1.Now()}}}}
	}
	policy := func(policy corev1.RestartPolicy) func(*corev1.Pod) {
		return spec(func(s *corev1.PodSpec) { s.RestartPolicy = policy })
	}
	ips := func(list ...string) func(*corev1.Pod) {
		return func(p *corev1.Pod) {
			for _, ip := range list {
				p.Status.PodIPs = append(p.Status.PodIPs, corev1.PodIP{IP: ip})
			}
		}
	}
	for _, c := range []struct {
		name          string
		before, after func(*corev1.Pod)
		path          string
		kind          field.ErrorType
		text          string
	}{
		{name: "phase", after: func(p *corev1.Pod) { p.Status.Phase = corev1.PodRunning }},
		{name: "always restarts", before: ended(0), after: running},
		{name: "failure restarts", before: both(policy("OnFailure"), ended(1)), after: both(policy("OnFailure"), running)},
		{name: "dual stack", after: ips("10.0.0.1", "fd00::1")},

		{"never restarts", both(policy("Never"), ended(1)), both(policy("Never"), running), "status.containerStatuses[0].state", field.ErrorTypeForbidden, "may not be transitioned to non-terminated state"},
		{"success stays", both(policy("OnFailure"), ended(0)), both(policy("OnFailure"), running), "status.containerStatuses[0].state", field.ErrorTypeForbidden, ""},
		{"node", nil, spec(func(s *corev1.PodSpec) { s.NodeName = "n" }), "status.nodeName", field.ErrorTypeForbidden, "may not be changed directly"},
		{"nominated node", nil, func(p *corev1.Pod) { p.Status.NominatedNodeName = "N" }, "status.nominatedNodeName", field.ErrorTypeInvalid, ""},
		{"qos", nil, func(p *corev1.Pod) { p.Status.QOSClass = corev1.PodQOSBurstable }, "status.qosClass", field.ErrorTypeInvalid, "field is immutable"},
		{"two of one family", nil, ips("10.0.0.1", "10.0.0.2"), "status.podIPs", field.ErrorTypeInvalid, "no more than one IP for each IP family"},
		{"same address", nil, ips("10.0.0.1", "10.0.0.1"), "status.podIPs[1]", field.ErrorTypeDuplicate, ""},
		{"not an address", nil, ips("ten"), "status.podIPs[0]", field.ErrorTypeInvalid, ""},
		{"host address", nil, func(p *corev1.Pod) { p.Status.HostIPs = []corev1.HostIP{{IP: "10.0.0.1"}} }, "status.hostIPs[0].ip", field.ErrorTypeInvalid, "must be equal to `hostIP`"},
		{"condition", nil, func(p *corev1.Pod) { p.Status.Conditions = []corev1.PodCondition{{Type: "a b"}} }, "status.conditions[0].Type", field.ErrorTypeInvalid, ""},
		{"claim", nil, func(p *corev1.Pod) { p.Status.ResourceClaimStatuses = []corev1.PodResourceClaimStatus{{Name: "x"}} }, "status.resourceClaimStatuses[0].name", field.ErrorTypeInvalid, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			errs := ValidateStatusUpdate(stored(c.after), stored(c.before))
			if c.path != "" {
				refusal{path: c.path, kind: c.kind, text: c.text}.check(t, errs)
			} else if len(errs) > 0 {
				t.Errorf("refused: %v", errs.ToAggregate())
			}
		})
	}
}
