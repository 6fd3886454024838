package pod

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"
)

func TestValidateRefusesMetadata(t *testing.T) {
	annotate := func(key, value string) func(*corev1.Pod) {
		return func(p *corev1.Pod) { p.Annotations = map[string]string{key: value} }
	}
	const appArmor = "container.apparmor.security.beta.kubernetes.io/"
	refuse(t, []refusal{
		{"no name", func(p *corev1.Pod) { p.Name = "" }, "metadata.name", field.ErrorTypeRequired, "name or generateName is required"},
		{"name", func(p *corev1.Pod) { p.Name = "Web" }, "metadata.name", field.ErrorTypeInvalid, "a lowercase RFC 1123 subdomain"},
		{"name too long", func(p *corev1.Pod) { p.Name = strings.Repeat("a", 254) }, "metadata.name", field.ErrorTypeInvalid, "no more than 253"},
		{"no namespace", func(p *corev1.Pod) { p.Namespace = "" }, "metadata.namespace", field.ErrorTypeRequired, ""},
		{"label", func(p *corev1.Pod) { p.Labels = map[string]string{"a": "b c"} }, "metadata.labels", field.ErrorTypeInvalid, "a valid label must be"},
		{"annotations too long", annotate("a", strings.Repeat("x", 256<<10)), "metadata.annotations", field.ErrorTypeTooLong, ""},
		{"finalizer", func(p *corev1.Pod) { p.Finalizers = []string{"mine"} }, "metadata.finalizers[0]", field.ErrorTypeInvalid, "fully qualified"},
		{"mirror without node", annotate("kubernetes.io/config.mirror", "x"), "metadata.annotations[kubernetes.io/config.mirror]", field.ErrorTypeInvalid, "must set spec.nodeName"},
		{"deletion cost", annotate("controller.kubernetes.io/pod-deletion-cost", "+1"), "metadata.annotations[controller.kubernetes.io/pod-deletion-cost]", field.ErrorTypeInvalid, "32bit integer"},
		{"apparmor of no container", annotate(appArmor+"x", "unconfined"), "metadata.annotations[" + appArmor + "x]", field.ErrorTypeInvalid, "container not found"},
		{"apparmor mismatch", both(annotate(appArmor+"main", "unconfined"), spec(func(s *corev1.PodSpec) {
			s.SecurityContext = &corev1.PodSecurityContext{AppArmorProfile: &corev1.AppArmorProfile{Type: "RuntimeDefault"}}
		})), "spec.containers[0].securityContext.appArmorProfile.type", field.ErrorTypeForbidden, "apparmor type in annotation and field must match"},
	})
}

func TestValidateRefusesSpec(t *testing.T) {
	named := func(edit func(*corev1.PodSpec)) func(*corev1.Pod) { return spec(edit) }
	refuse(t, []refusal{
		{"restart policy", named(func(s *corev1.PodSpec) { s.RestartPolicy = "x" }), "spec.restartPolicy", field.ErrorTypeNotSupported, `"Always", "OnFailure", "Never"`},
		{"dns policy", named(func(s *corev1.PodSpec) { s.DNSPolicy = "x" }), "spec.dnsPolicy", field.ErrorTypeNotSupported, ""},
		{"preemption", named(func(s *corev1.PodSpec) { s.PreemptionPolicy = ptr.To[corev1.PreemptionPolicy]("x") }), "spec.preemptionPolicy", field.ErrorTypeNotSupported, ""},
		{"account", named(func(s *corev1.PodSpec) { s.ServiceAccountName = "A_b" }), "spec.serviceAccountName", field.ErrorTypeInvalid, "subdomain"},
		{"account by its old name", named(func(s *corev1.PodSpec) { s.ServiceAccountName, s.DeprecatedServiceAccount = "", "A_b" }), "spec.serviceAccountName", field.ErrorTypeInvalid, ""},
		{"node", named(func(s *corev1.PodSpec) { s.NodeName = "N" }), "spec.nodeName", field.ErrorTypeInvalid, ""},
		{"priority class", named(func(s *corev1.PodSpec) { s.PriorityClassName = "N" }), "spec.priorityClassName", field.ErrorTypeInvalid, ""},
		{"runtime class", named(func(s *corev1.PodSpec) { s.RuntimeClassName = ptr.To("N") }), "spec.runtimeClassName", field.ErrorTypeInvalid, ""},
		{"deadline", named(func(s *corev1.PodSpec) { s.ActiveDeadlineSeconds = ptr.To[int64](0) }), "spec.activeDeadlineSeconds", field.ErrorTypeInvalid, "between 1 and 2147483647"},
		{"hostname", named(func(s *corev1.PodSpec) { s.Hostname = "a.b" }), "spec.hostname", field.ErrorTypeInvalid, "must not contain dots"},
		{"subdomain", named(func(s *corev1.PodSpec) { s.Subdomain = "a_b" }), "spec.subdomain", field.ErrorTypeInvalid, ""},
		{"hostname override", named(func(s *corev1.PodSpec) { s.HostnameOverride, s.HostNetwork = ptr.To("a"), true }), "spec.hostnameOverride", field.ErrorTypeForbidden, "hostNetwork is true"},
		{"hostname override length", named(func(s *corev1.PodSpec) { s.HostnameOverride = ptr.To(strings.Repeat("a", 65)) }), "spec.hostnameOverride", field.ErrorTypeTooLong, "64"},
		{"alias address", named(func(s *corev1.PodSpec) { s.HostAliases = []corev1.HostAlias{{IP: "010.0.0.1"}} }), "spec.hostAliases[0].ip", field.ErrorTypeInvalid, ""},
		{"alias name", named(func(s *corev1.PodSpec) {
			s.HostAliases = []corev1.HostAlias{{IP: "10.0.0.1", Hostnames: []string{"a_b"}}}
		}), "spec.hostAliases[0].hostnames[0]", field.ErrorTypeInvalid, ""},
		{"dns none", named(func(s *corev1.PodSpec) { s.DNSPolicy = corev1.DNSNone }), "spec.dnsConfig", field.ErrorTypeRequired, "must provide `dnsConfig`"},
		{"four servers", named(func(s *corev1.PodSpec) {
			s.DNSConfig = &corev1.PodDNSConfig{Nameservers: []string{"10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4"}}
		}), "spec.dnsConfig.nameservers", field.ErrorTypeInvalid, "more than 3"},
		{"long search", named(func(s *corev1.PodSpec) {
			s.DNSConfig = &corev1.PodDNSConfig{Searches: []string{strings.Repeat("a", 2049)}}
		}), "spec.dnsConfig.searches", field.ErrorTypeInvalid, "2048 characters"},
		{"option", named(func(s *corev1.PodSpec) { s.DNSConfig = &corev1.PodDNSConfig{Options: []corev1.PodDNSConfigOption{{}}} }), "spec.dnsConfig.options[0]", field.ErrorTypeRequired, ""},
		{"readiness gate", named(func(s *corev1.PodSpec) { s.ReadinessGates = []corev1.PodReadinessGate{{ConditionType: "a b"}} }), "spec.readinessGates[0].conditionType", field.ErrorTypeInvalid, ""},
		{"gate twice", named(func(s *corev1.PodSpec) { s.SchedulingGates = []corev1.PodSchedulingGate{{Name: "a"}, {Name: "a"}} }), "spec.schedulingGates[1]", field.ErrorTypeDuplicate, ""},
		{"gated on a node", named(func(s *corev1.PodSpec) { s.SchedulingGates, s.NodeName = []corev1.PodSchedulingGate{{Name: "a"}}, "n" }), "spec.nodeName", field.ErrorTypeForbidden, "schedulingGates have been cleared"},
		{"responder", named(func(s *corev1.PodSpec) {
			s.EvictionResponders = []corev1.EvictionResponder{{Name: "acme.io/x", Priority: ptr.To[int32](-1)}}
		}), "spec.evictionResponders[0].priority", field.ErrorTypeInvalid, ""},
	})
}

func TestValidateRefusesScheduling(t *testing.T) {
	tolerate := func(tol corev1.Toleration) func(*corev1.Pod) {
		return spec(func(s *corev1.PodSpec) { s.Tolerations = []corev1.Toleration{tol} })
	}
	node := func(r corev1.NodeSelectorRequirement) func(*corev1.Pod) {
		return spec(func(s *corev1.PodSpec) {
			s.Affinity = &corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{RequiredDuringSchedulingIgnoredDuringExecution: &corev1.NodeSelector{
				NodeSelectorTerms: []corev1.NodeSelectorTerm{{MatchExpressions: []corev1.NodeSelectorRequirement{r}}}}}}
		})
	}
	const expr = "spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[0].matchExpressions[0]"
	peer := func(term corev1.PodAffinityTerm) func(*corev1.Pod) {
		return spec(func(s *corev1.PodSpec) {
			s.Affinity = &corev1.Affinity{PodAntiAffinity: &corev1.PodAntiAffinity{PreferredDuringSchedulingIgnoredDuringExecution: []corev1.WeightedPodAffinityTerm{{Weight: 101, PodAffinityTerm: term}}}}
		})
	}
	const weighted = "spec.affinity.podAntiAffinity.preferredDuringSchedulingIgnoredDuringExecution[0]"
	spread := func(c ...corev1.TopologySpreadConstraint) func(*corev1.Pod) {
		return spec(func(s *corev1.PodSpec) { s.TopologySpreadConstraints = c })
	}
	good := corev1.TopologySpreadConstraint{MaxSkew: 1, TopologyKey: "zone", WhenUnsatisfiable: "DoNotSchedule"}
	refuse(t, []refusal{
		{"node selector", spec(func(s *corev1.PodSpec) { s.NodeSelector = map[string]string{"a b": ""} }), "spec.nodeSelector", field.ErrorTypeInvalid, ""},
		{"keyless equal", tolerate(corev1.Toleration{Value: "x"}), "spec.tolerations[0].operator", field.ErrorTypeInvalid, "operator must be Exists when `key` is empty"},
		{"value of exists", tolerate(corev1.Toleration{Key: "a", Operator: "Exists", Value: "x"}), "spec.tolerations[0].operator", field.ErrorTypeInvalid, "value must be empty"},
		{"operator", tolerate(corev1.Toleration{Key: "a", Operator: "Like"}), "spec.tolerations[0].operator", field.ErrorTypeNotSupported, `"Equal", "Exists"`},
		{"number", tolerate(corev1.Toleration{Key: "a", Operator: "Gt", Value: "01"}), "spec.tolerations[0].value", field.ErrorTypeInvalid, ""},
		{"effect", tolerate(corev1.Toleration{Key: "a", Effect: "Nap"}), "spec.tolerations[0].effect", field.ErrorTypeNotSupported, ""},
		{"seconds", tolerate(corev1.Toleration{Key: "a", TolerationSeconds: ptr.To[int64](1)}), "spec.tolerations[0].effect", field.ErrorTypeInvalid, "must be 'NoExecute'"},
		{"in nothing", node(corev1.NodeSelectorRequirement{Key: "a", Operator: "In"}), expr + ".values", field.ErrorTypeRequired, "'In' or 'NotIn'"},
		{"exists with values", node(corev1.NodeSelectorRequirement{Key: "a", Operator: "Exists", Values: []string{"b"}}), expr + ".values", field.ErrorTypeForbidden, ""},
		{"selector operator", node(corev1.NodeSelectorRequirement{Key: "a", Operator: "x"}), expr + ".operator", field.ErrorTypeInvalid, "not a valid selector operator"},
		{"selector value", node(corev1.NodeSelectorRequirement{Key: "a", Operator: "In", Values: []string{"b c"}}), expr + ".values[0]", field.ErrorTypeInvalid, ""},
		{"weight", peer(corev1.PodAffinityTerm{TopologyKey: "zone"}), weighted + ".weight", field.ErrorTypeInvalid, "must be in the range 1-100"},
		{"topology key", peer(corev1.PodAffinityTerm{}), weighted + ".podAffinityTerm.topologyKey", field.ErrorTypeRequired, "can not be empty"},
		{"match keys alone", peer(corev1.PodAffinityTerm{TopologyKey: "zone", MatchLabelKeys: []string{"a"}}), weighted + ".podAffinityTerm.matchLabelKeys", field.ErrorTypeForbidden, "labelSelector is not set"},
		{"match keys twice", peer(corev1.PodAffinityTerm{TopologyKey: "zone", MatchLabelKeys: []string{"a"}, LabelSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"a": "b"}}}), weighted + ".podAffinityTerm.matchLabelKeys[0]", field.ErrorTypeInvalid, "exists in both"},
		{"skew", spread(corev1.TopologySpreadConstraint{TopologyKey: "zone", WhenUnsatisfiable: "DoNotSchedule"}), "spec.topologySpreadConstraints[0].maxSkew", field.ErrorTypeInvalid, "must be greater than zero"},
		{"when", spread(corev1.TopologySpreadConstraint{MaxSkew: 1, TopologyKey: "zone"}), "spec.topologySpreadConstraints[0].whenUnsatisfiable", field.ErrorTypeNotSupported, ""},
		{"same constraint", spread(good, good), "spec.topologySpreadConstraints[1].{topologyKey, whenUnsatisfiable}", field.ErrorTypeDuplicate, "{zone, DoNotSchedule}"},
	})
}
