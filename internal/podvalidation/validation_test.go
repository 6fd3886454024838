package podvalidation

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"
)

// minimal returns the smallest pod that is valid, before defaults.
func minimal() *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "web", Namespace: "shop", Labels: map[string]string{"app": "web"}},
		Spec: corev1.PodSpec{
			ServiceAccountName: "default",
			Containers:         []corev1.Container{{Name: "main", Image: "registry.example/web:1"}},
		},
	}
}

func defaulted(mutate func(*corev1.Pod)) *corev1.Pod {
	pod := minimal()
	if mutate != nil {
		mutate(pod)
	}
	SetDefaults(pod)
	return pod
}

// main edits the pod's only container.
func main(edit func(*corev1.Container)) func(*corev1.Pod) {
	return func(p *corev1.Pod) { edit(&p.Spec.Containers[0]) }
}

// spec edits the pod's spec.
func spec(edit func(*corev1.PodSpec)) func(*corev1.Pod) {
	return func(p *corev1.Pod) { edit(&p.Spec) }
}

// volume adds a volume named data.
func volume(source corev1.VolumeSource) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		p.Spec.Volumes = append(p.Spec.Volumes, corev1.Volume{Name: "data", VolumeSource: source})
	}
}

// projected adds a projected volume named data.
func projected(sources ...corev1.VolumeProjection) func(*corev1.Pod) {
	return volume(corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{Sources: sources}})
}

// mount adds an emptyDir volume named data and a mount in the container.
func mount(m corev1.VolumeMount) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		volume(corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}})(p)
		p.Spec.Containers[0].VolumeMounts = append(p.Spec.Containers[0].VolumeMounts, m)
	}
}

// env gives the container one variable with a source.
func env(from corev1.EnvVarSource) func(*corev1.Pod) {
	return main(func(c *corev1.Container) { c.Env = []corev1.EnvVar{{Name: "A", ValueFrom: &from}} })
}

func list(pairs ...string) corev1.ResourceList {
	out := corev1.ResourceList{}
	for i := 0; i < len(pairs); i += 2 {
		out[corev1.ResourceName(pairs[i])] = resource.MustParse(pairs[i+1])
	}
	return out
}

func limits(limits, requests corev1.ResourceList) func(*corev1.Pod) {
	return main(func(c *corev1.Container) {
		c.Resources = corev1.ResourceRequirements{Limits: limits, Requests: requests}
	})
}

func token(path string, seconds *int64) corev1.VolumeProjection {
	return corev1.VolumeProjection{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{Path: path, ExpirationSeconds: seconds}}
}

func httpProbe() *corev1.Probe {
	return &corev1.Probe{ProbeHandler: corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Port: intstr.FromInt32(80)}}}
}

func both(edits ...func(*corev1.Pod)) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		for _, edit := range edits {
			edit(p)
		}
	}
}

func TestValidateAccepts(t *testing.T) {
	t.Parallel()
	for name, mutate := range map[string]func(*corev1.Pod){
		"minimal": nil,
		"init containers and sidecars": spec(func(s *corev1.PodSpec) {
			s.InitContainers = []corev1.Container{
				{Name: "setup", Image: "i"},
				{Name: "proxy", Image: "i", RestartPolicy: ptr.To(corev1.ContainerRestartPolicyAlways), ReadinessProbe: httpProbe()},
			}
		}),
		"service account token as admission adds it": projected(
			token("token", ptr.To[int64](3607)),
			corev1.VolumeProjection{ConfigMap: &corev1.ConfigMapProjection{
				LocalObjectReference: corev1.LocalObjectReference{Name: "kube-root-ca.crt"},
				Items:                []corev1.KeyToPath{{Key: "ca.crt", Path: "ca.crt"}}}},
			corev1.VolumeProjection{DownwardAPI: &corev1.DownwardAPIProjection{Items: []corev1.DownwardAPIVolumeFile{
				{Path: "namespace", FieldRef: &corev1.ObjectFieldSelector{FieldPath: "metadata.namespace"}}}}}),
		"mount read-only with sub-path": mount(corev1.VolumeMount{Name: "data", MountPath: "/d", SubPath: "a/b", ReadOnly: true,
			RecursiveReadOnly: ptr.To(corev1.RecursiveReadOnlyEnabled)}),
		"relaxed variable name":     main(func(c *corev1.Container) { c.Env = []corev1.EnvVar{{Name: "a b.c", Value: "1"}} }),
		"label by the downward API": env(corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{FieldPath: "metadata.labels['app.example/x']"}}),
		"requests below limits":     limits(list("cpu", "1", "memory", "1Gi"), list("cpu", "100m")),
		"device":                    limits(list("vendor.example/gpu", "2"), nil),
		"huge pages with memory":    limits(list("hugepages-2Mi", "4Mi", "memory", "1Gi"), nil),
		"host network":              both(spec(func(s *corev1.PodSpec) { s.HostNetwork = true }), main(func(c *corev1.Container) { c.Ports = []corev1.ContainerPort{{ContainerPort: 80}} })),
		"same port tcp and udp": main(func(c *corev1.Container) {
			c.Ports = []corev1.ContainerPort{{ContainerPort: 53}, {ContainerPort: 53, Protocol: corev1.ProtocolUDP}}
		}),
		"all probes and hooks": main(func(c *corev1.Container) {
			c.LivenessProbe, c.ReadinessProbe, c.StartupProbe = httpProbe(), httpProbe(), httpProbe()
			c.Lifecycle = &corev1.Lifecycle{PreStop: &corev1.LifecycleHandler{Sleep: &corev1.SleepAction{Seconds: 5}}}
		}),
		"tolerate everything": spec(func(s *corev1.PodSpec) { s.Tolerations = []corev1.Toleration{{Operator: corev1.TolerationOpExists}} }),
		"own user namespace with unmasked proc": both(spec(func(s *corev1.PodSpec) { s.HostUsers = ptr.To(false) }),
			main(func(c *corev1.Container) {
				c.SecurityContext = &corev1.SecurityContext{ProcMount: ptr.To(corev1.UnmaskedProcMount)}
			})),
		"ephemeral volume": volume(corev1.VolumeSource{Ephemeral: &corev1.EphemeralVolumeSource{VolumeClaimTemplate: &corev1.PersistentVolumeClaimTemplate{
			Spec: corev1.PersistentVolumeClaimSpec{AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
				Resources: corev1.VolumeResourceRequirements{Requests: list("storage", "1Gi")}}}}}),
		"variable from a file": both(mount(corev1.VolumeMount{Name: "data", MountPath: "/d"}),
			env(corev1.EnvVarSource{FileKeyRef: &corev1.FileKeySelector{VolumeName: "data", Path: "env", Key: "A"}})),
		"claims by request": both(spec(func(s *corev1.PodSpec) {
			s.ResourceClaims = []corev1.PodResourceClaim{{Name: "gpu", ResourceClaimName: ptr.To("c")}}
		}), main(func(c *corev1.Container) {
			c.Resources.Claims = []corev1.ResourceClaim{{Name: "gpu", Request: "a"}, {Name: "gpu", Request: "b"}}
		})),
		"search dot": spec(func(s *corev1.PodSpec) {
			s.DNSConfig = &corev1.PodDNSConfig{Searches: []string{".", "_tcp.example.", "x"}, Nameservers: []string{"10.0.0.1", "fd00::1"}}
		}),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if errs := Validate(defaulted(mutate)); len(errs) > 0 {
				t.Errorf("refused: %v", errs.ToAggregate())
			}
		})
	}
}

type refusal struct {
	name   string
	mutate func(*corev1.Pod)
	path   string
	kind   field.ErrorType
	text   string
}

func (r refusal) check(t *testing.T, errs field.ErrorList) {
	t.Helper()
	for _, err := range errs {
		if err.Field == r.path && err.Type == r.kind && strings.Contains(err.Error(), r.text) {
			return
		}
	}
	t.Errorf("got %v\nwant %s %s %q", errs.ToAggregate(), r.path, r.kind, r.text)
}

// refuse checks that each pod is refused after its defaults were set.
func refuse(t *testing.T, cases []refusal) {
	t.Helper()
	t.Parallel()
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			c.check(t, Validate(defaulted(c.mutate)))
		})
	}
}

func TestValidateWithoutDefaults(t *testing.T) {
	t.Parallel()
	errs := Validate(minimal())
	for _, path := range []string{"spec.terminationGracePeriodSeconds", "spec.restartPolicy", "spec.dnsPolicy",
		"spec.containers[0].terminationMessagePolicy", "spec.containers[0].imagePullPolicy"} {
		refusal{path: path, kind: field.ErrorTypeRequired}.check(t, errs)
	}
}

func TestValidateNamesEachFault(t *testing.T) {
	t.Parallel()
	pod := defaulted(both(
		func(p *corev1.Pod) { p.Name = "UPPER" },
		main(func(c *corev1.Container) { c.Name, c.Image = "", "" }),
		spec(func(s *corev1.PodSpec) { s.RestartPolicy = "Sometimes" })))
	if errs := Validate(pod); len(errs) != 4 {
		t.Errorf("got %d faults, want 4: %v", len(errs), errs.ToAggregate())
	}
}

func TestValidateBoundsItsAnswer(t *testing.T) {
	t.Parallel()
	pod := defaulted(spec(func(s *corev1.PodSpec) {
		s.Tolerations = make([]corev1.Toleration, 40000)
		s.Volumes = make([]corev1.Volume, 5000)
	}))
	if errs := Validate(pod); len(errs) != maxFaults {
		t.Errorf("got %d faults, want %d", len(errs), maxFaults)
	}
}

func TestValidateBinding(t *testing.T) {
	t.Parallel()
	ok := &corev1.Binding{Target: corev1.ObjectReference{Kind: "Node", Name: "n1"}}
	if errs := ValidateBinding(ok); len(errs) > 0 {
		t.Errorf("refused: %v", errs.ToAggregate())
	}
	errs := ValidateBinding(&corev1.Binding{Target: corev1.ObjectReference{Kind: "Rack"}})
	refusal{path: "target.kind", kind: field.ErrorTypeNotSupported, text: `"Node", "<empty>"`}.check(t, errs)
	refusal{path: "target.name", kind: field.ErrorTypeRequired}.check(t, errs)
}

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

// FuzzValidate calls every function of the package with any pod that can be decoded.
func FuzzValidate(f *testing.F) {
	seeds := []*corev1.Pod{{}, minimal(), defaulted(nil), defaulted(projected(token("t", nil))), large(3)}
	for _, seed := range seeds {
		text, err := json.Marshal(seed)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	f.Add([]byte(`{"spec":{"containers":[{"resources":{"limits":{"hugepages-0":"1","hugepages-":"1e30"}}}],"resources":{}}}`))
	f.Add([]byte(`{"metadata":{"annotations":{"scheduler.alpha.kubernetes.io/tolerations":"[{}]"}},"spec":{"affinity":{},"schedulingGates":[{}]}}`))
	old := stored(spec(func(s *corev1.PodSpec) { s.SchedulingGates = []corev1.PodSchedulingGate{{Name: "a"}} }))
	f.Fuzz(func(t *testing.T, text []byte) {
		var pod corev1.Pod
		if json.Unmarshal(text, &pod) != nil {
			return
		}
		raw := pod.DeepCopy()
		for _, p := range []*corev1.Pod{raw, &pod} {
			if p == &pod {
				SetDefaults(p)
			}
			if errs := Validate(p); len(errs) > maxFaults {
				t.Errorf("%d faults", len(errs))
			}
			ValidateUpdate(p, old)
			ValidateUpdate(p, raw)
			ValidateStatusUpdate(p, old)
			ValidateStatusUpdate(p, raw)
			Warnings(p)
			QOSClass(p)
		}
	})
}

// large returns a pod with defaults and n containers, volumes and tolerations. 700 make about a megabyte of JSON.
func large(n int) *corev1.Pod {
	pod := minimal()
	for i := range n {
		name := fmt.Sprintf("n%d", i)
		pod.Spec.Volumes = append(pod.Spec.Volumes, corev1.Volume{Name: name})
		pod.Spec.Tolerations = append(pod.Spec.Tolerations, corev1.Toleration{Key: name, Operator: corev1.TolerationOpExists})
		pod.Spec.Containers = append(pod.Spec.Containers, corev1.Container{
			Name: name, Image: "registry.example/web:1", ReadinessProbe: httpProbe(),
			Env:          []corev1.EnvVar{{Name: "A", Value: name}, {Name: "B", Value: name}},
			VolumeMounts: []corev1.VolumeMount{{Name: name, MountPath: "/a"}},
			Resources:    corev1.ResourceRequirements{Limits: list("cpu", "1")},
		})
	}
	SetDefaults(pod)
	return pod
}

func BenchmarkValidate(b *testing.B) {
	for _, n := range []int{0, 1500} {
		pod := large(n)
		text, err := json.Marshal(pod)
		if err != nil {
			b.Fatal(err)
		}
		b.Run(fmt.Sprintf("%dB", len(text)), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if errs := Validate(pod); len(errs) > 0 {
					b.Fatal(errs)
				}
			}
		})
	}
}

// BenchmarkValidateUpdateRefused measures the most expensive refusal, in which every container differs.
func BenchmarkValidateUpdateRefused(b *testing.B) {
	old, updated := large(1500), large(1500)
	for i := range updated.Spec.Containers {
		updated.Spec.Containers[i].WorkingDir = fmt.Sprint(i)
	}
	b.ReportAllocs()
	for b.Loop() {
		if len(ValidateUpdate(updated, old)) == 0 {
			b.Fatal("accepted")
		}
	}
}
