package podsupport

import (
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"

	"lanyard.dev/internal/podannotation"
)

func aPod(change func(*corev1.Pod)) *corev1.Pod {
	pod := &corev1.Pod{Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "main", Image: "app:1"}}}}
	change(pod)
	return pod
}

func TestUnsupported(t *testing.T) {
	t.Parallel()
	container := func(f func(*corev1.Container)) func(*corev1.Pod) {
		return func(p *corev1.Pod) { f(&p.Spec.Containers[0]) }
	}
	volume := func(source corev1.VolumeSource) func(*corev1.Pod) {
		return func(p *corev1.Pod) { p.Spec.Volumes = []corev1.Volume{{Name: "v", VolumeSource: source}} }
	}
	projected := func(source corev1.VolumeProjection) func(*corev1.Pod) {
		return volume(corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{source}}})
	}
	tests := []struct {
		name   string
		change func(*corev1.Pod)
		want   string // the path refused, "" for none
	}{
		{"plain", func(*corev1.Pod) {}, ""},
		{"scheduling", func(p *corev1.Pod) {
			p.Spec.NodeSelector, p.Spec.Affinity = map[string]string{"a": "b"}, &corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{}}
			p.Spec.Tolerations, p.Spec.Priority = []corev1.Toleration{{Operator: "Exists"}}, ptr.To[int32](3)
		}, ""},
		{"liveness", container(func(c *corev1.Container) { c.LivenessProbe = &corev1.Probe{} }), "spec.containers[0].livenessProbe"},
		{"lifecycle", container(func(c *corev1.Container) { c.Lifecycle = &corev1.Lifecycle{} }), "spec.containers[0].lifecycle"},
		{"devices", container(func(c *corev1.Container) { c.VolumeDevices = []corev1.VolumeDevice{{}} }), "spec.containers[0].volumeDevices"},
		{"subPath", container(func(c *corev1.Container) { c.VolumeMounts = []corev1.VolumeMount{{SubPath: "x"}} }), "spec.containers[0].volumeMounts[0].subPath"},
		{"gpu", container(func(c *corev1.Container) {
			c.Resources.Limits = corev1.ResourceList{"cpu": resource.MustParse("1"), "nvidia.com/gpu": resource.MustParse("1")}
		}), "spec.containers[0].resources.limits[nvidia.com/gpu]"},
		{"claims", container(func(c *corev1.Container) { c.Resources.Claims = []corev1.ResourceClaim{{}} }), "spec.containers[0].resources.claims"},
		{"file key", container(func(c *corev1.Container) {
			c.Env = []corev1.EnvVar{{Name: "A", ValueFrom: &corev1.EnvVarSource{FileKeyRef: &corev1.FileKeySelector{}}}}
		}), "spec.containers[0].env[0].valueFrom.fileKeyRef"},
		{"local seccomp", container(func(c *corev1.Container) {
			c.SecurityContext = &corev1.SecurityContext{SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeLocalhost}}
		}), "spec.containers[0].securityContext.seccompProfile.type"},
		{"default seccomp", func(p *corev1.Pod) {
			p.Spec.SecurityContext = &corev1.PodSecurityContext{SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault}}
		}, ""},
		{"SELinux options of the pod", func(p *corev1.Pod) {
			p.Spec.SecurityContext = &corev1.PodSecurityContext{SELinuxOptions: &corev1.SELinuxOptions{Level: "s0:c1,c2"}}
		}, ""},
		{"SELinux options of a container", container(func(c *corev1.Container) {
			c.SecurityContext = &corev1.SecurityContext{SELinuxOptions: &corev1.SELinuxOptions{Type: "spc_t"}}
		}), ""},
		{"AppArmor", func(p *corev1.Pod) {
			p.Spec.SecurityContext = &corev1.PodSecurityContext{AppArmorProfile: &corev1.AppArmorProfile{Type: corev1.AppArmorProfileTypeLocalhost, LocalhostProfile: ptr.To("mine")}}
		}, ""},
		{"only the pod's groups", func(p *corev1.Pod) {
			p.Spec.SecurityContext = &corev1.PodSecurityContext{SupplementalGroupsPolicy: ptr.To(corev1.SupplementalGroupsPolicyStrict)}
		}, ""},
		{"sysctls", func(p *corev1.Pod) { p.Spec.SecurityContext = &corev1.PodSecurityContext{Sysctls: []corev1.Sysctl{{}}} }, "spec.securityContext.sysctls"},
		{"user namespace", func(p *corev1.Pod) { p.Spec.HostUsers = ptr.To(false) }, "spec.hostUsers"},
		{"no user namespace", func(p *corev1.Pod) { p.Spec.HostUsers = ptr.To(true) }, ""},
		{"windows", func(p *corev1.Pod) { p.Spec.OS = &corev1.PodOS{Name: corev1.Windows} }, "spec.os.name"},
		{"linux", func(p *corev1.Pod) { p.Spec.OS = &corev1.PodOS{Name: corev1.Linux} }, ""},
		{"runtime class", func(p *corev1.Pod) { p.Spec.RuntimeClassName = ptr.To("kata") }, "spec.runtimeClassName"},
		{"ephemeral container", func(p *corev1.Pod) { p.Spec.EphemeralContainers = []corev1.EphemeralContainer{{}} }, "spec.ephemeralContainers"},
		{"resource claims", func(p *corev1.Pod) { p.Spec.ResourceClaims = []corev1.PodResourceClaim{{}} }, "spec.resourceClaims"},
		{"pod resources", func(p *corev1.Pod) { p.Spec.Resources = &corev1.ResourceRequirements{} }, "spec.resources"},
		{"no overhead", func(p *corev1.Pod) { p.Spec.Overhead = corev1.ResourceList{} }, ""},
		{"sidecar", func(p *corev1.Pod) {
			p.Spec.InitContainers = []corev1.Container{{RestartPolicy: ptr.To(corev1.ContainerRestartPolicyAlways)}}
		}, ""},
		{"own policy of init container", func(p *corev1.Pod) {
			p.Spec.InitContainers = []corev1.Container{{RestartPolicy: ptr.To(corev1.ContainerRestartPolicyNever)}}
		}, "spec.initContainers[0].restartPolicy"},
		{"own policy", container(func(c *corev1.Container) { c.RestartPolicy = ptr.To(corev1.ContainerRestartPolicyAlways) }), "spec.containers[0].restartPolicy"},
		{"propagation", container(func(c *corev1.Container) {
			c.VolumeMounts = []corev1.VolumeMount{{MountPropagation: ptr.To(corev1.MountPropagationBidirectional)}}
		}), "spec.containers[0].volumeMounts[0].mountPropagation"},
		{"propagation of privileged", container(func(c *corev1.Container) {
			c.SecurityContext = &corev1.SecurityContext{Privileged: ptr.To(true)}
			c.VolumeMounts = []corev1.VolumeMount{{MountPropagation: ptr.To(corev1.MountPropagationBidirectional)}}
		}), ""},
		{"emptyDir", volume(corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}), ""},
		{"huge pages", volume(corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{Medium: "HugePages"}}), "spec.volumes[0].emptyDir.medium"},
		{"size in memory", volume(corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{Medium: "Memory", SizeLimit: resource.NewQuantity(1, resource.BinarySI)}}), ""},
		{"size on disk", volume(corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{SizeLimit: resource.NewQuantity(1, resource.BinarySI)}}), "spec.volumes[0].emptyDir.sizeLimit"},
		{"claim", volume(corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{}}), "spec.volumes[0].persistentVolumeClaim"},
		{"csi", volume(corev1.VolumeSource{CSI: &corev1.CSIVolumeSource{}}), "spec.volumes[0].csi"},
		{"token", projected(corev1.VolumeProjection{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{Path: "token", ExpirationSeconds: ptr.To[int64](3600), Audience: "a"}}), ""},
		{"config map", projected(corev1.VolumeProjection{ConfigMap: &corev1.ConfigMapProjection{LocalObjectReference: corev1.LocalObjectReference{Name: "c"}, Items: []corev1.KeyToPath{{Key: "k", Path: "p"}}}}), ""},
		{"trust bundle", projected(corev1.VolumeProjection{ClusterTrustBundle: &corev1.ClusterTrustBundleProjection{}}), "spec.volumes[0].projected.sources[0].clusterTrustBundle"},
		{"certificate", projected(corev1.VolumeProjection{PodCertificate: &corev1.PodCertificateProjection{}}), "spec.volumes[0].projected.sources[0].podCertificate"},
		{"signal", func(p *corev1.Pod) { p.Annotations = map[string]string{podannotation.OnRenew: "signal:HUP"} }, ""},
		{"no signal", func(p *corev1.Pod) { p.Annotations = map[string]string{podannotation.OnRenew: "signal:KILL"} }, "metadata.annotations[" + podannotation.OnRenew + "]"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			var paths []string
			for _, err := range Unsupported(aPod(test.change)) {
				paths = append(paths, err.Field)
			}
			if got := strings.Join(paths, ","); got != test.want {
				t.Errorf("refused %q, want %q", got, test.want)
			}
		})
	}
}

func TestWarnings(t *testing.T) {
	t.Parallel()
	probed := func(p *corev1.Pod) { p.Spec.Containers[0].LivenessProbe = &corev1.Probe{} }
	want := []string{"spec.containers[0].livenessProbe: the Lanyard agent will refuse to run this pod: not supported by the agent"}
	for name, test := range map[string]struct {
		annotations map[string]string
		want        []string
	}{
		"a pod":                  {nil, want},
		"a process":              {map[string]string{podannotation.Process: "true"}, nil},
		"a kubelet's static pod": {map[string]string{corev1.MirrorPodAnnotationKey: "x"}, nil},
	} {
		pod := aPod(probed)
		pod.Annotations = test.annotations
		if got := Warnings(pod); !slices.Equal(got, test.want) {
			t.Errorf("%s: %q, want %q", name, got, test.want)
		}
	}
}

// TestSchedulingWarnings sets each field of a placement that has no effect, and those that have one.
func TestSchedulingWarnings(t *testing.T) {
	t.Parallel()
	term := corev1.PodAffinityTerm{TopologyKey: "zone"}
	preferred := []corev1.PreferredSchedulingTerm{{Weight: 1}}
	affinity := func(a corev1.Affinity) func(*corev1.PodSpec) { return func(s *corev1.PodSpec) { s.Affinity = &a } }
	apart := affinity(corev1.Affinity{PodAntiAffinity: &corev1.PodAntiAffinity{RequiredDuringSchedulingIgnoredDuringExecution: []corev1.PodAffinityTerm{term}}})
	toSchedule := func(set func(*corev1.PodSpec)) *corev1.Pod {
		return aPod(func(p *corev1.Pod) { p.Spec.SchedulerName = corev1.DefaultSchedulerName; set(&p.Spec) })
	}
	const why = ": the Lanyard scheduler does not consider it"
	for name, c := range map[string]struct {
		set  func(*corev1.PodSpec)
		want string // the field, or none
	}{
		"none": {func(*corev1.PodSpec) {}, ""},
		"what is considered": {func(s *corev1.PodSpec) {
			s.NodeSelector, s.Tolerations = map[string]string{"a": "b"}, []corev1.Toleration{{Operator: corev1.TolerationOpExists}}
			s.Affinity = &corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{RequiredDuringSchedulingIgnoredDuringExecution: &corev1.NodeSelector{}}}
			s.SchedulingGates = []corev1.PodSchedulingGate{{Name: "example.com/gate"}}
		}, ""},
		"preferred nodes":   {affinity(corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{PreferredDuringSchedulingIgnoredDuringExecution: preferred}}), "spec.affinity.nodeAffinity.preferredDuringSchedulingIgnoredDuringExecution"},
		"beside pods":       {affinity(corev1.Affinity{PodAffinity: &corev1.PodAffinity{RequiredDuringSchedulingIgnoredDuringExecution: []corev1.PodAffinityTerm{term}}}), "spec.affinity.podAffinity"},
		"apart":             {apart, "spec.affinity.podAntiAffinity"},
		"spread":            {func(s *corev1.PodSpec) { s.TopologySpreadConstraints = []corev1.TopologySpreadConstraint{{}} }, "spec.topologySpreadConstraints"},
		"priority":          {func(s *corev1.PodSpec) { s.PriorityClassName = "high" }, "spec.priorityClassName"},
		"group":             {func(s *corev1.PodSpec) { s.SchedulingGroup = &corev1.PodSchedulingGroup{} }, "spec.schedulingGroup"},
		"on a node":         {func(s *corev1.PodSpec) { apart(s); s.NodeName = "n" }, ""},
		"another scheduler": {func(s *corev1.PodSpec) { apart(s); s.SchedulerName = "other" }, ""},
	} {
		var want []string
		if c.want != "" {
			want = []string{c.want + why}
		}
		if diff := cmp.Diff(want, Warnings(toSchedule(c.set))); diff != "" {
			t.Errorf("%s: (-want +got)\n%s", name, diff)
		}
	}
	process := toSchedule(apart)
	process.Annotations = map[string]string{podannotation.Process: "true"}
	if got := Warnings(process); got != nil {
		t.Errorf("a process: %q", got)
	}
}

// Each field that the API's types have is in the table, or above or below one that is, or refused. The test sets every field
// that can be reached without passing through a refused or a supported one.
func TestUndeclaredFieldsAreRefused(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	var reach func(reflect.Type, string)
	reach = func(typ reflect.Type, path string) {
		for typ.Kind() == reflect.Pointer || typ.Kind() == reflect.Slice {
			typ = typ.Elem()
		}
		if typ.Kind() != reflect.Struct {
			return
		}
		for i := range typ.NumField() {
			f := typ.Field(i)
			if f.Anonymous {
				reach(f.Type, path)
				continue
			}
			name := path + "." + jsonName(f)
			seen[name] = true
			if declared().above[name] {
				reach(f.Type, name)
				continue
			}
			v := reflect.New(typ).Elem()
			if !setAny(v.Field(i)) {
				continue
			}
			refused := 0
			walkValue(nil, path, v, func(path *field.Path, row *supported, value reflect.Value) { refused += len(row.check(path, value)) })
			row, known := declared().fields[name]
			if known == (refused > 0) && row.values == nil && row.keys == nil {
				t.Errorf("%s: %d refusals", name, refused)
			}
		}
	}
	reach(reflect.TypeFor[corev1.PodSpec](), "spec")
	for name := range declared().fields {
		if !seen[name] {
			t.Errorf("the table has %s, but there is no such field", name)
		}
		if declared().above[name] {
			t.Errorf("the table has %s, and a field below it", name)
		}
	}
}

// setAny gives a field some value that is not its zero.
func setAny(v reflect.Value) bool {
	switch v.Kind() {
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
	case reflect.Map:
		v.Set(reflect.MakeMap(v.Type()))
		v.SetMapIndex(reflect.ValueOf("x").Convert(v.Type().Key()), reflect.Zero(v.Type().Elem()))
	case reflect.String:
		v.SetString("x")
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int32, reflect.Int64:
		v.SetInt(1)
	case reflect.Struct:
		if v.Type() == reflect.TypeFor[resource.Quantity]() {
			v.Set(reflect.ValueOf(resource.MustParse("1")))
			return true
		}
		return v.NumField() > 0 && setAny(v.Field(0))
	default:
		return false
	}
	return true
}
