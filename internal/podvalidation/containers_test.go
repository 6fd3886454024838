package podvalidation

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"
)

func TestValidateRefusesContainers(t *testing.T) {
	const c0 = "spec.containers[0]."
	port := func(ports ...corev1.ContainerPort) func(*corev1.Pod) {
		return main(func(c *corev1.Container) { c.Ports = ports })
	}
	liveness := func(edit func(*corev1.Probe)) func(*corev1.Pod) {
		return main(func(c *corev1.Container) { c.LivenessProbe = httpProbe(); edit(c.LivenessProbe) })
	}
	initContainer := func(c corev1.Container) func(*corev1.Pod) {
		return spec(func(s *corev1.PodSpec) { s.InitContainers = []corev1.Container{c} })
	}
	refuse(t, []refusal{
		{"no containers", spec(func(s *corev1.PodSpec) { s.Containers = nil }), "spec.containers", field.ErrorTypeRequired, ""},
		{"no name", main(func(c *corev1.Container) { c.Name = "" }), c0 + "name", field.ErrorTypeRequired, ""},
		{"name not a label", main(func(c *corev1.Container) { c.Name = "A" }), c0 + "name", field.ErrorTypeInvalid, "a lowercase RFC 1123 label"},
		{"same name", spec(func(s *corev1.PodSpec) { s.Containers = append(s.Containers, s.Containers[0]) }), "spec.containers[1].name", field.ErrorTypeDuplicate, `"main"`},
		{"init has main's name", initContainer(corev1.Container{Name: "main", Image: "i"}), "spec.initContainers[0].name", field.ErrorTypeDuplicate, ""},
		{"no image", main(func(c *corev1.Container) { c.Image = "" }), c0 + "image", field.ErrorTypeRequired, ""},
		{"padded image", main(func(c *corev1.Container) { c.Image = " i" }), c0 + "image", field.ErrorTypeInvalid, "leading or trailing whitespace"},
		{"pull policy", main(func(c *corev1.Container) { c.ImagePullPolicy = "Maybe" }), c0 + "imagePullPolicy", field.ErrorTypeNotSupported, `"Always", "IfNotPresent", "Never"`},
		{"message policy", main(func(c *corev1.Container) { c.TerminationMessagePolicy = "x" }), c0 + "terminationMessagePolicy", field.ErrorTypeNotSupported, ""},
		{"port missing", port(corev1.ContainerPort{}), c0 + "ports[0].containerPort", field.ErrorTypeRequired, ""},
		{"port too high", port(corev1.ContainerPort{ContainerPort: 65536}), c0 + "ports[0].containerPort", field.ErrorTypeInvalid, "between 1 and 65535"},
		{"port name", port(corev1.ContainerPort{ContainerPort: 1, Name: "way-too-long-name"}), c0 + "ports[0].name", field.ErrorTypeInvalid, "15 characters"},
		{"same port name", port(corev1.ContainerPort{ContainerPort: 1, Name: "a"}, corev1.ContainerPort{ContainerPort: 2, Name: "a"}), c0 + "ports[1].name", field.ErrorTypeDuplicate, ""},
		{"protocol", port(corev1.ContainerPort{ContainerPort: 1, Protocol: "ICMP"}), c0 + "ports[0].protocol", field.ErrorTypeNotSupported, `"SCTP", "TCP", "UDP"`},
		{"host port taken", port(corev1.ContainerPort{ContainerPort: 1, HostPort: 80}, corev1.ContainerPort{ContainerPort: 2, HostPort: 80}), c0 + "ports[1].hostPort", field.ErrorTypeDuplicate, `"TCP//80"`},
		{"host network port", both(spec(func(s *corev1.PodSpec) { s.HostNetwork = true }), port(corev1.ContainerPort{ContainerPort: 1, HostPort: 2})), c0 + "ports[0].hostPort", field.ErrorTypeInvalid, "must match `containerPort`"},
		{"two handlers", liveness(func(p *corev1.Probe) { p.Exec = &corev1.ExecAction{Command: []string{"a"}} }), c0 + "livenessProbe.httpGet", field.ErrorTypeForbidden, "more than 1 handler"},
		{"no handler", liveness(func(p *corev1.Probe) { p.HTTPGet = nil }), c0 + "livenessProbe", field.ErrorTypeRequired, "must specify a handler type"},
		{"probe port", liveness(func(p *corev1.Probe) { p.HTTPGet.Port = intstr.FromString("a_b") }), c0 + "livenessProbe.httpGet.port", field.ErrorTypeInvalid, ""},
		{"probe scheme", liveness(func(p *corev1.Probe) { p.HTTPGet.Scheme = "ftp" }), c0 + "livenessProbe.httpGet.scheme", field.ErrorTypeNotSupported, `"HTTP", "HTTPS"`},
		{"probe header", liveness(func(p *corev1.Probe) { p.HTTPGet.HTTPHeaders = []corev1.HTTPHeader{{Name: "a b"}} }), c0 + "livenessProbe.httpGet.httpHeaders", field.ErrorTypeInvalid, ""},
		{"negative delay", liveness(func(p *corev1.Probe) { p.InitialDelaySeconds = -1 }), c0 + "livenessProbe.initialDelaySeconds", field.ErrorTypeInvalid, "must be greater than or equal to 0"},
		{"liveness threshold", liveness(func(p *corev1.Probe) { p.SuccessThreshold = 2 }), c0 + "livenessProbe.successThreshold", field.ErrorTypeInvalid, "must be 1"},
		{"probe grace", liveness(func(p *corev1.Probe) { p.TerminationGracePeriodSeconds = ptr.To[int64](0) }), c0 + "livenessProbe.terminationGracePeriodSeconds", field.ErrorTypeInvalid, "must be greater than 0"},
		{"readiness grace", main(func(c *corev1.Container) {
			c.ReadinessProbe = httpProbe()
			c.ReadinessProbe.TerminationGracePeriodSeconds = ptr.To[int64](3)
		}), c0 + "readinessProbe.terminationGracePeriodSeconds", field.ErrorTypeInvalid, "must not be set for readinessProbes"},
		{"empty exec", main(func(c *corev1.Container) {
			c.Lifecycle = &corev1.Lifecycle{PostStart: &corev1.LifecycleHandler{Exec: &corev1.ExecAction{}}}
		}), c0 + "lifecycle.postStart.exec.command", field.ErrorTypeRequired, ""},
		{"sleep too long", main(func(c *corev1.Container) {
			c.Lifecycle = &corev1.Lifecycle{PreStop: &corev1.LifecycleHandler{Sleep: &corev1.SleepAction{Seconds: 31}}}
		}), c0 + "lifecycle.preStop.sleep", field.ErrorTypeInvalid, "terminationGracePeriodSeconds (30)"},
		{"stop signal without os", main(func(c *corev1.Container) { c.Lifecycle = &corev1.Lifecycle{StopSignal: ptr.To(corev1.SIGUSR1)} }), c0 + "lifecycle.stopSignal", field.ErrorTypeForbidden, "spec.os.name"},
		{"init with probe", initContainer(corev1.Container{Name: "i", Image: "i", LivenessProbe: httpProbe()}), "spec.initContainers[0].livenessProbe", field.ErrorTypeForbidden, "without restartPolicy=Always"},
		{"restart rules alone", main(func(c *corev1.Container) {
			c.RestartPolicyRules = []corev1.ContainerRestartRule{{Action: "Restart", ExitCodes: &corev1.ContainerRestartRuleOnExitCodes{Operator: "In"}}}
		}), c0 + "restartPolicy", field.ErrorTypeRequired, "must specify restartPolicy when restart rules are used"},
		{"resize policy", main(func(c *corev1.Container) {
			c.ResizePolicy = []corev1.ContainerResizePolicy{{ResourceName: "cpu", RestartPolicy: "Later"}}
		}), c0 + "resizePolicy", field.ErrorTypeNotSupported, ""},
		{"ephemeral", spec(func(s *corev1.PodSpec) {
			s.EphemeralContainers = []corev1.EphemeralContainer{{EphemeralContainerCommon: corev1.EphemeralContainerCommon{Name: "e", Image: "i"}}}
		}), "spec.ephemeralContainers", field.ErrorTypeForbidden, "cannot be set on create"},
	})
}

func TestValidateRefusesEnv(t *testing.T) {
	const v0 = "spec.containers[0].env[0]."
	fieldRef := func(path string) func(*corev1.Pod) {
		return env(corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{FieldPath: path}})
	}
	resourceRef := func(name, divisor string) func(*corev1.Pod) {
		return env(corev1.EnvVarSource{ResourceFieldRef: &corev1.ResourceFieldSelector{Resource: name, Divisor: list("d", divisor)["d"]}})
	}
	secretRef := func(name, key string) *corev1.SecretKeySelector {
		return &corev1.SecretKeySelector{LocalObjectReference: corev1.LocalObjectReference{Name: name}, Key: key}
	}
	refuse(t, []refusal{
		{"no name", main(func(c *corev1.Container) { c.Env = []corev1.EnvVar{{}} }), v0 + "name", field.ErrorTypeRequired, ""},
		{"equals sign", main(func(c *corev1.Container) { c.Env = []corev1.EnvVar{{Name: "a=b"}} }), v0 + "name", field.ErrorTypeInvalid, ""},
		{"no source", env(corev1.EnvVarSource{}), v0 + "valueFrom", field.ErrorTypeInvalid, "must specify one of: `fieldRef`"},
		{"two sources", env(corev1.EnvVarSource{SecretKeyRef: secretRef("s", "k"), FieldRef: &corev1.ObjectFieldSelector{FieldPath: "metadata.name"}}), v0 + "valueFrom", field.ErrorTypeInvalid, "may not have more than one field"},
		{"value and source", main(func(c *corev1.Container) {
			c.Env = []corev1.EnvVar{{Name: "A", Value: "s3cr3t", ValueFrom: &corev1.EnvVarSource{SecretKeyRef: secretRef("s", "k")}}}
		}), v0 + "valueFrom", field.ErrorTypeInvalid, "may not be specified when `value` is not empty"},
		{"secret name", env(corev1.EnvVarSource{SecretKeyRef: secretRef("S", "k")}), v0 + "valueFrom.secretKeyRef.name", field.ErrorTypeInvalid, ""},
		{"secret key", env(corev1.EnvVarSource{SecretKeyRef: secretRef("s", "../k")}), v0 + "valueFrom.secretKeyRef.key", field.ErrorTypeInvalid, ""},
		{"unknown field", fieldRef("spec.volumes"), v0 + "valueFrom.fieldRef.fieldPath", field.ErrorTypeInvalid, "field label not supported: spec.volumes"},
		{"field not for variables", fieldRef("status.phase"), v0 + "valueFrom.fieldRef.fieldPath", field.ErrorTypeNotSupported, `"metadata.name"`},
		{"all labels", fieldRef("metadata.labels"), v0 + "valueFrom.fieldRef.fieldPath", field.ErrorTypeNotSupported, ""},
		{"subscript", fieldRef("metadata.name['a']"), v0 + "valueFrom.fieldRef.fieldPath", field.ErrorTypeInvalid, "does not support subscript"},
		{"bad label", fieldRef("metadata.labels['a b']"), v0 + "valueFrom.fieldRef", field.ErrorTypeInvalid, ""},
		{"other version", env(corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{APIVersion: "v2", FieldPath: "metadata.name"}}), v0 + "valueFrom.fieldRef.fieldPath", field.ErrorTypeInvalid, "unsupported pod version: v2"},
		{"resource", resourceRef("limits.disk", "1"), v0 + "valueFrom.resourceFieldRef.resource", field.ErrorTypeNotSupported, "limits.cpu"},
		{"divisor", resourceRef("limits.cpu", "2"), v0 + "valueFrom.resourceFieldRef.divisor", field.ErrorTypeInvalid, "only divisor's values 1m and 1 are supported with the cpu resource"},
		{"no such volume", env(corev1.EnvVarSource{FileKeyRef: &corev1.FileKeySelector{VolumeName: "x", Path: "p", Key: "k"}}), v0 + "valueFrom.fileKeyRef.volumeName", field.ErrorTypeNotFound, ""},
		{"from nothing", main(func(c *corev1.Container) { c.EnvFrom = []corev1.EnvFromSource{{}} }), "spec.containers[0].envFrom", field.ErrorTypeInvalid, "must specify one of: `configMapRef` or `secretRef`"},
		{"from unnamed", main(func(c *corev1.Container) { c.EnvFrom = []corev1.EnvFromSource{{SecretRef: &corev1.SecretEnvSource{}}} }), "spec.containers[0].envFrom[0].secretRef.name", field.ErrorTypeRequired, ""},
	})
}

func TestFaultsDoNotRepeatValues(t *testing.T) {
	t.Parallel()
	pod := defaulted(main(func(c *corev1.Container) {
		c.Env = []corev1.EnvVar{{Name: "A", Value: "s3cr3t", ValueFrom: &corev1.EnvVarSource{}}}
	}))
	if text := Validate(pod).ToAggregate().Error(); strings.Contains(text, "s3cr3t") {
		t.Errorf("the value of a variable is in %q", text)
	}
}

func TestValidateRefusesResources(t *testing.T) {
	const r = "spec.containers[0].resources."
	refuse(t, []refusal{
		{"request above limit", limits(list("cpu", "1"), list("cpu", "2")), r + "requests", field.ErrorTypeInvalid, "must be less than or equal to cpu limit of 1"},
		{"negative", limits(list("cpu", "-1"), nil), r + "limits[cpu]", field.ErrorTypeInvalid, "greater than or equal to 0"},
		{"unknown", limits(list("ram", "1"), nil), r + "limits[ram]", field.ErrorTypeInvalid, "must be a standard resource for containers"},
		{"not for containers", limits(list("pods", "1"), nil), r + "limits[pods]", field.ErrorTypeInvalid, "must be a standard resource for containers"},
		{"half a device", limits(list("vendor.example/gpu", "500m"), nil), r + "limits[vendor.example/gpu]", field.ErrorTypeInvalid, "must be an integer"},
		{"device without limit", limits(nil, list("vendor.example/gpu", "1")), r + "limits", field.ErrorTypeRequired, "non overcommitable"},
		{"device over-committed", limits(list("vendor.example/gpu", "2"), list("vendor.example/gpu", "1")), r + "requests", field.ErrorTypeInvalid, "must be equal to vendor.example/gpu limit of 2"},
		{"huge pages alone", limits(list("hugepages-2Mi", "2Mi"), nil), "spec.containers[0].resources", field.ErrorTypeForbidden, "HugePages require cpu or memory"},
		{"part of a huge page", limits(list("hugepages-2Mi", "3Mi", "cpu", "1"), nil), r + "limits[hugepages-2Mi]", field.ErrorTypeInvalid, "is not positive integer multiple of"},
		{"unknown claim", main(func(c *corev1.Container) { c.Resources.Claims = []corev1.ResourceClaim{{Name: "gpu"}} }), r + "claims[0]", field.ErrorTypeNotFound, "which is empty"},
		{"claim twice", both(spec(func(s *corev1.PodSpec) {
			s.ResourceClaims = []corev1.PodResourceClaim{{Name: "gpu", ResourceClaimName: ptr.To("c")}}
		}),
			main(func(c *corev1.Container) { c.Resources.Claims = []corev1.ResourceClaim{{Name: "gpu"}, {Name: "gpu"}} })), r + "claims[1]", field.ErrorTypeDuplicate, ""},
		{"claim without source", spec(func(s *corev1.PodSpec) { s.ResourceClaims = []corev1.PodResourceClaim{{Name: "gpu"}} }), "spec.resourceClaims[0]", field.ErrorTypeInvalid, "must specify one of"},
		{"pod less than containers", both(limits(list("cpu", "2"), nil), spec(func(s *corev1.PodSpec) {
			s.Resources = &corev1.ResourceRequirements{Requests: list("cpu", "1"), Limits: list("cpu", "4")}
		})), "spec.resources.requests[cpu]", field.ErrorTypeInvalid, "aggregate container requests of 2"},
		{"pod-level device", spec(func(s *corev1.PodSpec) {
			s.Resources = &corev1.ResourceRequirements{Limits: list("vendor.example/gpu", "1")}
		}), "spec.resources.limits[vendor.example/gpu]", field.ErrorTypeNotSupported, `"cpu"`},
		{"overhead", spec(func(s *corev1.PodSpec) { s.Overhead = list("cpu", "-1") }), "spec.overhead.limits[cpu]", field.ErrorTypeInvalid, ""},
	})
}

func TestValidateRefusesSecurity(t *testing.T) {
	const s0 = "spec.containers[0].securityContext"
	sc := func(sc corev1.SecurityContext) func(*corev1.Pod) {
		return main(func(c *corev1.Container) { c.SecurityContext = &sc })
	}
	psc := func(sc corev1.PodSecurityContext) func(*corev1.Pod) {
		return spec(func(s *corev1.PodSpec) { s.SecurityContext = &sc })
	}
	refuse(t, []refusal{
		{"user", sc(corev1.SecurityContext{RunAsUser: ptr.To[int64](-1)}), s0 + ".runAsUser", field.ErrorTypeInvalid, "between 0 and 2147483647"},
		{"group", sc(corev1.SecurityContext{RunAsGroup: ptr.To[int64](1 << 40)}), s0 + ".runAsGroup", field.ErrorTypeInvalid, ""},
		{"proc mount", sc(corev1.SecurityContext{ProcMount: ptr.To[corev1.ProcMountType]("x")}), s0 + ".procMount", field.ErrorTypeNotSupported, ""},
		{"unmasked with host users", sc(corev1.SecurityContext{ProcMount: ptr.To(corev1.UnmaskedProcMount)}), s0 + ".procMount", field.ErrorTypeInvalid, "`hostUsers` must be false"},
		{"no escalation but privileged", sc(corev1.SecurityContext{Privileged: ptr.To(true), AllowPrivilegeEscalation: ptr.To(false)}), s0, field.ErrorTypeInvalid, "`privileged` to true"},
		{"no escalation but admin", sc(corev1.SecurityContext{Capabilities: &corev1.Capabilities{Add: []corev1.Capability{"CAP_SYS_ADMIN"}}, AllowPrivilegeEscalation: ptr.To(false)}), s0, field.ErrorTypeInvalid, "CAP_SYS_ADMIN"},
		{"seccomp type", sc(corev1.SecurityContext{SeccompProfile: &corev1.SeccompProfile{}}), s0 + ".seccompProfile.type", field.ErrorTypeRequired, ""},
		{"seccomp file", sc(corev1.SecurityContext{SeccompProfile: &corev1.SeccompProfile{Type: "Localhost", LocalhostProfile: ptr.To("../x")}}), s0 + ".seccompProfile.localhostProfile", field.ErrorTypeInvalid, "must not contain '..'"},
		{"seccomp no file", sc(corev1.SecurityContext{SeccompProfile: &corev1.SeccompProfile{Type: "Localhost"}}), s0 + ".seccompProfile.localhostProfile", field.ErrorTypeRequired, ""},
		{"apparmor needless file", psc(corev1.PodSecurityContext{AppArmorProfile: &corev1.AppArmorProfile{Type: "Unconfined", LocalhostProfile: ptr.To("x")}}), "spec.securityContext.appArmorProfile.localhostProfile", field.ErrorTypeInvalid, ""},
		{"fsGroup", psc(corev1.PodSecurityContext{FSGroup: ptr.To[int64](-1)}), "spec.securityContext.fsGroup", field.ErrorTypeInvalid, ""},
		{"fsGroup policy", psc(corev1.PodSecurityContext{FSGroupChangePolicy: ptr.To[corev1.PodFSGroupChangePolicy]("x")}), "spec.securityContext.fsGroupChangePolicy", field.ErrorTypeNotSupported, `"Always", "OnRootMismatch"`},
		{"groups policy", psc(corev1.PodSecurityContext{SupplementalGroupsPolicy: ptr.To[corev1.SupplementalGroupsPolicy]("x")}), "spec.securityContext.supplementalGroupsPolicy", field.ErrorTypeNotSupported, ""},
		{"sysctl name", psc(corev1.PodSecurityContext{Sysctls: []corev1.Sysctl{{Name: "A.b"}}}), "spec.securityContext.sysctls[0].name", field.ErrorTypeInvalid, "253 characters"},
		{"sysctl twice", psc(corev1.PodSecurityContext{Sysctls: []corev1.Sysctl{{Name: "a.b"}, {Name: "a.b"}}}), "spec.securityContext.sysctls[1].name", field.ErrorTypeDuplicate, ""},
		{"sysctl of the host", both(psc(corev1.PodSecurityContext{Sysctls: []corev1.Sysctl{{Name: "net.core.somaxconn"}}}), spec(func(s *corev1.PodSpec) { s.HostNetwork = true })), "spec.securityContext.sysctls[0].name", field.ErrorTypeInvalid, "'hostNetwork' is true"},
		{"host pid and users", spec(func(s *corev1.PodSpec) { s.HostPID, s.HostUsers = true, ptr.To(false) }), "spec.HostPID", field.ErrorTypeForbidden, "when `hostUsers` is false"},
		{"shared with host pid", spec(func(s *corev1.PodSpec) { s.HostPID, s.ShareProcessNamespace = true, ptr.To(true) }), "spec.securityContext.shareProcessNamespace", field.ErrorTypeInvalid, ""},
		{"os", spec(func(s *corev1.PodSpec) { s.OS = &corev1.PodOS{Name: "plan9"} }), "spec.os", field.ErrorTypeNotSupported, `"linux", "windows"`},
		{"windows privileged", both(sc(corev1.SecurityContext{Privileged: ptr.To(true)}), spec(func(s *corev1.PodSpec) { s.OS = &corev1.PodOS{Name: "windows"} })), s0 + ".privileged", field.ErrorTypeForbidden, "cannot be set for a windows pod"},
		{"linux with windows options", both(sc(corev1.SecurityContext{WindowsOptions: &corev1.WindowsSecurityContextOptions{}}), spec(func(s *corev1.PodSpec) { s.OS = &corev1.PodOS{Name: "linux"} })), s0 + ".windowsOptions", field.ErrorTypeForbidden, "for a linux pod"},
		{"windows user", sc(corev1.SecurityContext{WindowsOptions: &corev1.WindowsSecurityContextOptions{RunAsUserName: ptr.To(`a\b\c`)}}), s0 + ".windowsOptions.runAsUserName", field.ErrorTypeInvalid, "more than one backslash"},
		{"host process without host network", sc(corev1.SecurityContext{WindowsOptions: &corev1.WindowsSecurityContextOptions{HostProcess: ptr.To(true)}}), "spec.hostNetwork", field.ErrorTypeInvalid, ""},
	})
}

func TestQOSClass(t *testing.T) {
	t.Parallel()
	guaranteed := list("cpu", "1", "memory", "1Gi")
	for name, test := range map[string]struct {
		want   corev1.PodQOSClass
		mutate func(*corev1.Pod)
	}{
		"nothing":              {corev1.PodQOSBestEffort, nil},
		"only other resources": {corev1.PodQOSBestEffort, limits(list("example.com/gpu", "1"), list("cpu", "0"))},
		"a request":            {corev1.PodQOSBurstable, limits(nil, list("cpu", "1"))},
		"one limit":            {corev1.PodQOSBurstable, limits(list("cpu", "1"), list("cpu", "1"))},
		"limits":               {corev1.PodQOSGuaranteed, limits(guaranteed, nil)},
		"one container of two": {corev1.PodQOSBurstable, func(p *corev1.Pod) {
			limits(guaranteed, nil)(p)
			p.Spec.InitContainers = []corev1.Container{{Name: "init"}}
		}},
		"the pod as a whole": {corev1.PodQOSGuaranteed, spec(func(s *corev1.PodSpec) {
			s.Resources = &corev1.ResourceRequirements{Limits: guaranteed, Requests: guaranteed}
		})},
	} {
		pod := defaulted(test.mutate)
		pod.Status.QOSClass = "stale"
		if got := QOSClass(pod); got != test.want {
			t.Errorf("%s: got %s, want %s", name, got, test.want)
		}
	}
}
