//go:build linux

package cri

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/utils/ptr"
)

// TestSecurityContext checks the effect of security contexts in the container.
func TestSecurityContext(t *testing.T) {
	t.Parallel()
	r := newRuntime(t)
	status := []string{"cat", "/proc/self/status"}
	for name, test := range map[string]struct {
		image     string
		steps     []string
		pod       *corev1.PodSecurityContext
		container *corev1.SecurityContext
		want      []string
	}{
		"nothing":      {"tool", append(status, ";", "id"), nil, nil, []string{"uid=0 gid=0", "NoNewPrivs:\t0", "Seccomp:\t0"}},
		"image's user": {"numeric", []string{"id"}, nil, nil, []string{"uid=1234 gid=4321 groups=4321"}},
		"image's name": {"named", []string{"id"}, nil, nil, []string{"uid=1500 gid=1500"}},
		"pod's user": {
			"tool", []string{"id"}, &corev1.PodSecurityContext{RunAsUser: ptr.To[int64](1000), RunAsGroup: ptr.To[int64](2000), FSGroup: ptr.To[int64](3000), SupplementalGroups: []int64{4000}},
			nil, []string{"uid=1000 gid=2000 groups=2000,3000,4000"},
		},
		"container's user": {
			"tool", []string{"id"}, &corev1.PodSecurityContext{RunAsUser: ptr.To[int64](1000)}, &corev1.SecurityContext{RunAsUser: ptr.To[int64](1001), RunAsGroup: ptr.To[int64](1)},
			[]string{"uid=1001 gid=1 "},
		},
		"only a group": {"named", []string{"id"}, nil, &corev1.SecurityContext{RunAsGroup: ptr.To[int64](5)}, []string{"uid=1500 gid=5 "}},
		"non-root": {
			"numeric", []string{"id"}, &corev1.PodSecurityContext{RunAsNonRoot: ptr.To(true)}, nil, []string{"uid=1234"},
		},
		"no escalation": {
			"tool", status, nil, &corev1.SecurityContext{
				AllowPrivilegeEscalation: ptr.To(false), Capabilities: &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}, Add: []corev1.Capability{"NET_BIND_SERVICE"}},
				SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
			}, []string{"CapEff:\t0000000000000400", "CapBnd:\t0000000000000400", "NoNewPrivs:\t1", "Seccomp:\t2"},
		},
		"pod's seccomp": {
			"tool", status, &corev1.PodSecurityContext{SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault}}, nil, []string{"Seccomp:\t2"},
		},
		"read-only root": {
			"tool", []string{"write", "/tmp/file", "text"}, nil, &corev1.SecurityContext{ReadOnlyRootFilesystem: ptr.To(true)}, []string{"read-only file system"},
		},
		"SELinux options where there is no SELinux": {
			"tool", []string{"id"}, &corev1.PodSecurityContext{SELinuxOptions: &corev1.SELinuxOptions{Type: "container_t", Level: "s0:c123,c456"}},
			&corev1.SecurityContext{SELinuxOptions: &corev1.SELinuxOptions{User: "system_u", Role: "system_r"}}, []string{"uid=0"},
		},
		"kernel's files": {"tool", []string{"write", "/proc/sys/kernel/hostname", "text"}, nil, nil, []string{"read-only file system"}},
		"sysctl": {
			"tool", []string{"cat", "/proc/sys/net/ipv4/ip_unprivileged_port_start"},
			&corev1.PodSecurityContext{Sysctls: []corev1.Sysctl{{Name: "net.ipv4.ip_unprivileged_port_start", Value: "80"}}}, nil, []string{"80\n"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			pod := podOf(test.steps...)
			pod.Spec.SecurityContext, pod.Spec.Containers[0].SecurityContext = test.pod, test.container
			pod.Spec.Containers[0].Image = "lanyard.test/" + test.image + ":1"
			log := output(t, r, pod)
			for _, text := range test.want {
				if !strings.Contains(log+"\n", text) {
					t.Errorf("no %q in\n%s", text, log)
				}
			}
		})
	}
}

func TestPrivileged(t *testing.T) {
	t.Parallel()
	r := newRuntime(t)
	pod := podOf("cat", "/proc/self/status", ";", "write", "/proc/sys/net/ipv4/ip_default_ttl", "63")
	pod.Spec.Containers[0].SecurityContext = &corev1.SecurityContext{Privileged: ptr.To(true)}
	ran := start(t, r, pod)
	if ended := ran.await(ran.id, Exited); ended.ExitCode != 0 {
		t.Errorf("ended %+v, saying %q", ended, ran.logs(ran.id, &corev1.PodLogOptions{}))
	}
}

// TestNonRoot checks the messages, which are the kubelet's.
func TestNonRoot(t *testing.T) {
	t.Parallel()
	r := newRuntime(t)
	for image, test := range map[string]struct {
		user *int64
		want string
	}{
		"lanyard.test/tool:1":    {nil, "container has runAsNonRoot and image will run as root"},
		"lanyard.test/named:1":   {nil, "container has runAsNonRoot and image has non-numeric user (somebody), cannot verify user is non-root"},
		"lanyard.test/numeric:1": {ptr.To[int64](0), "container's runAsUser breaks non-root policy"},
	} {
		t.Run(image, func(t *testing.T) {
			t.Parallel()
			pod := podOf("id")
			pod.Spec.Containers[0].Image = image
			pod.Spec.SecurityContext = &corev1.PodSecurityContext{RunAsNonRoot: ptr.To(true), RunAsUser: test.user}
			_, err := create(t, r, pod)
			refused := &ConfigError{}
			want := test.want + ` (pod: "pod_default(` + string(pod.UID) + `)", container: main)`
			if !errors.As(err, &refused) || refused.Message != want {
				t.Errorf("%v, want %s", err, want)
			}
		})
	}
}

func TestRefused(t *testing.T) {
	t.Parallel()
	r := &Runtime{config: Config{CgroupDriver: cgroupfs, SeccompDir: "/profiles", AppArmorFile: "/nowhere"}}
	local := func(path string) *corev1.SeccompProfile {
		return &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeLocalhost, LocalhostProfile: &path}
	}
	for name, change := range map[string]func(*corev1.PodSpec){
		"users":  func(s *corev1.PodSpec) { s.HostUsers = ptr.To(false) },
		"sysctl": func(s *corev1.PodSpec) { s.SecurityContext.Sysctls = []corev1.Sysctl{{Name: "kernel.msgmax"}} },
		"machine's ports": func(s *corev1.PodSpec) {
			s.HostNetwork, s.SecurityContext.Sysctls = true, []corev1.Sysctl{{Name: "net.ipv4.tcp_rmem"}}
		},
		"profile's path": func(s *corev1.PodSpec) { s.SecurityContext.SeccompProfile = local("../../etc/passwd") },
		"profile's root": func(s *corev1.PodSpec) { s.SecurityContext.SeccompProfile = local("/etc/passwd") },
		"profile's type": func(s *corev1.PodSpec) { s.SecurityContext.SeccompProfile = &corev1.SeccompProfile{Type: "Other"} },
		"armor that is not there": func(s *corev1.PodSpec) {
			s.SecurityContext.AppArmorProfile = &corev1.AppArmorProfile{Type: corev1.AppArmorProfileTypeRuntimeDefault}
		},
		"armor's type": func(s *corev1.PodSpec) { s.SecurityContext.AppArmorProfile = &corev1.AppArmorProfile{Type: "Other"} },
	} {
		pod := podOf()
		pod.Spec.SecurityContext = &corev1.PodSecurityContext{}
		change(&pod.Spec)
		_, sandbox := r.sandboxConfig(t.Context(), pod, 0)
		_, container := r.containerConfig(t.Context(), ContainerSpec{Pod: pod, Container: &pod.Spec.Containers[0]})
		refused := &ConfigError{}
		if err := errors.Join(sandbox, container); !errors.As(err, &refused) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestContainerSecurity(t *testing.T) {
	t.Parallel()
	enabled := filepath.Join(t.TempDir(), "enabled")
	if err := os.WriteFile(enabled, []byte("Y\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	r := &Runtime{config: Config{SeccompDir: "/profiles", AppArmorFile: enabled}}
	pod := podOf()
	pod.Spec.SecurityContext = &corev1.PodSecurityContext{
		SELinuxOptions: &corev1.SELinuxOptions{Level: "s0:c1"}, AppArmorProfile: &corev1.AppArmorProfile{Type: corev1.AppArmorProfileTypeRuntimeDefault},
	}
	pod.Spec.Containers[0].SecurityContext = &corev1.SecurityContext{
		ProcMount: ptr.To(corev1.UnmaskedProcMount), SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeLocalhost, LocalhostProfile: ptr.To("a/b.json")},
		AppArmorProfile: &corev1.AppArmorProfile{Type: corev1.AppArmorProfileTypeLocalhost, LocalhostProfile: ptr.To("mine")},
	}
	got, err := r.containerSecurity(t.Context(), ContainerSpec{Pod: pod, Container: &pod.Spec.Containers[0]})
	if err != nil {
		t.Fatal(err)
	}
	want := &runtimeapi.LinuxContainerSecurityContext{
		NamespaceOptions: &runtimeapi.NamespaceOption{Pid: runtimeapi.NamespaceMode_CONTAINER},
		SelinuxOptions:   &runtimeapi.SELinuxOption{Level: "s0:c1"}, MaskedPaths: []string{}, ReadonlyPaths: []string{},
		Seccomp:  &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_Localhost, LocalhostRef: "/profiles/a/b.json"},
		Apparmor: &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_Localhost, LocalhostRef: "mine"},
	}
	if diff := cmp.Diff(want.String(), got.String()); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	// Without a profile AppArmor is not needed.
	r.config.AppArmorFile = "/nowhere"
	pod.Spec.SecurityContext.AppArmorProfile = &corev1.AppArmorProfile{Type: corev1.AppArmorProfileTypeUnconfined}
	pod.Spec.Containers[0].SecurityContext = nil
	if got, err = r.containerSecurity(t.Context(), ContainerSpec{Pod: pod, Container: &pod.Spec.Containers[0]}); err != nil || len(got.MaskedPaths) < 10 || len(got.ReadonlyPaths) != 5 {
		t.Errorf("by default masked %v, read-only %v, %v", got.GetMaskedPaths(), got.GetReadonlyPaths(), err)
	}
}
