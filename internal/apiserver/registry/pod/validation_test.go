package pod

import (
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

// refuse runs the cases after defaulting, unless a case has to do with what defaults would mend.
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
