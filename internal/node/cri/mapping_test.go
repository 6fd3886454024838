//go:build linux

package cri

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/kubectl/pkg/util/qos"
	"k8s.io/utils/ptr"
)

func TestSandboxConfig(t *testing.T) {
	t.Parallel()
	r := &Runtime{config: Config{AgentID: "me", LogDir: "/logs", CgroupDriver: systemd, ResolvConf: writeFile(t, t.TempDir(), "resolv.conf", "nameserver 192.0.2.1\n")}}
	pod := podOf()
	pod.Name, pod.UID, pod.Labels, pod.Annotations = strings.Repeat("n", 62)+"-x", "uid", map[string]string{"app": "a", "io.kubernetes.pod.uid": "forged"}, map[string]string{"note": "n"}
	pod.Spec.Containers[0].Ports = []corev1.ContainerPort{{ContainerPort: 80, HostPort: 8080, HostIP: "127.0.0.1"}, {ContainerPort: 81}, {ContainerPort: 53, HostPort: 53, Protocol: corev1.ProtocolUDP}}
	pod.Spec.SecurityContext = &corev1.PodSecurityContext{
		RunAsUser: ptr.To[int64](1), RunAsGroup: ptr.To[int64](2), FSGroup: ptr.To[int64](3), SupplementalGroups: []int64{4}, SELinuxOptions: &corev1.SELinuxOptions{Type: "t"},
		Sysctls: []corev1.Sysctl{{Name: "net.ipv4.tcp_syncookies", Value: "1"}},
	}
	ofInit := []corev1.ContainerPort{{ContainerPort: 90, HostPort: 90}}
	pod.Spec.InitContainers = []corev1.Container{
		{SecurityContext: &corev1.SecurityContext{Privileged: ptr.To(true)}, Ports: ofInit}, {RestartPolicy: ptr.To(corev1.ContainerRestartPolicyAlways), Ports: ofInit},
	}
	got, err := r.sandboxConfig(t.Context(), pod, 7)
	if err != nil {
		t.Fatal(err)
	}
	want := &runtimeapi.PodSandboxConfig{
		Metadata: &runtimeapi.PodSandboxMetadata{Name: pod.Name, Namespace: "default", Uid: "uid", Attempt: 7},
		Hostname: strings.Repeat("n", 62), LogDirectory: "/logs/default_" + pod.Name + "_uid", DnsConfig: &runtimeapi.DNSConfig{Servers: []string{"192.0.2.1"}},
		PortMappings: []*runtimeapi.PortMapping{
			{ContainerPort: 90, HostPort: 90}, {ContainerPort: 80, HostPort: 8080, HostIp: "127.0.0.1"}, {ContainerPort: 53, HostPort: 53, Protocol: runtimeapi.Protocol_UDP},
		},
		Labels: map[string]string{
			"app": "a", "io.kubernetes.pod.name": pod.Name, "io.kubernetes.pod.namespace": "default", "io.kubernetes.pod.uid": "uid", agentLabel: "me",
		},
		Annotations: map[string]string{"note": "n"},
		Linux: &runtimeapi.LinuxPodSandboxConfig{
			CgroupParent: "lanyard.slice", Sysctls: map[string]string{"net.ipv4.tcp_syncookies": "1"},
			SecurityContext: &runtimeapi.LinuxSandboxSecurityContext{
				NamespaceOptions: &runtimeapi.NamespaceOption{Pid: runtimeapi.NamespaceMode_CONTAINER}, SelinuxOptions: &runtimeapi.SELinuxOption{Type: "t"},
				RunAsUser: &runtimeapi.Int64Value{Value: 1}, RunAsGroup: &runtimeapi.Int64Value{Value: 2}, SupplementalGroups: []int64{3, 4}, Privileged: true,
				Seccomp: &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_RuntimeDefault},
			},
		},
	}
	if diff := cmp.Diff(want.String(), got.String()); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	if len(pod.Labels) != 2 {
		t.Errorf("the pod's labels were changed: %v", pod.Labels)
	}
}

func TestHostNamespaces(t *testing.T) {
	t.Parallel()
	pod := podOf()
	pod.Spec.HostNetwork, pod.Spec.HostIPC, pod.Spec.ShareProcessNamespace = true, true, ptr.To(true)
	pod.Spec.Containers[0].Ports = []corev1.ContainerPort{{ContainerPort: 80, HostPort: 80}}
	got, err := namespaceOptions(pod)
	want := &runtimeapi.NamespaceOption{Network: runtimeapi.NamespaceMode_NODE, Ipc: runtimeapi.NamespaceMode_NODE, Pid: runtimeapi.NamespaceMode_POD}
	if err != nil || got.String() != want.String() {
		t.Errorf("%v, %v; want %v", got, err, want)
	}
	if mapped, name := portMappings(pod), hostname(pod); mapped != nil || name != "" {
		t.Errorf("with the machine's network: ports %v, host name %q", mapped, name)
	}
}

func TestContainerConfig(t *testing.T) {
	t.Parallel()
	r := &Runtime{config: Config{AgentID: "me"}}
	pod := podOf("a")
	pod.UID = "uid"
	container := &pod.Spec.Containers[0]
	container.Command, container.WorkingDir, container.Stdin, container.StdinOnce, container.TTY = []string{"c"}, "/dir", true, true, true
	got, err := r.containerConfig(t.Context(), ContainerSpec{
		Pod: pod, Container: container, Attempt: 2, ImageID: "sha256:1", Env: []corev1.EnvVar{{Name: "A", Value: "B"}},
		Mounts: []Mount{
			{HostPath: "/h", ContainerPath: "/c", ReadOnly: true, Propagation: ptr.To(corev1.MountPropagationHostToContainer)},
			{HostPath: "/h2", ContainerPath: "c2", Propagation: ptr.To(corev1.MountPropagationBidirectional)}, {HostPath: "/h3", ContainerPath: "/c3"},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	want := &runtimeapi.ContainerConfig{
		Metadata: &runtimeapi.ContainerMetadata{Name: "main", Attempt: 2}, Image: &runtimeapi.ImageSpec{Image: "sha256:1", UserSpecifiedImage: "lanyard.test/tool:1"},
		Command: []string{"c"}, Args: []string{"a"}, WorkingDir: "/dir", Envs: []*runtimeapi.KeyValue{{Key: "A", Value: []byte("B")}},
		Mounts: []*runtimeapi.Mount{
			{HostPath: "/h", ContainerPath: "/c", Readonly: true, Propagation: runtimeapi.MountPropagation_PROPAGATION_HOST_TO_CONTAINER},
			{HostPath: "/h2", ContainerPath: "/c2", Propagation: runtimeapi.MountPropagation_PROPAGATION_BIDIRECTIONAL}, {HostPath: "/h3", ContainerPath: "/c3"},
		},
		Labels: map[string]string{
			"io.kubernetes.container.name": "main", "io.kubernetes.pod.name": "pod", "io.kubernetes.pod.namespace": "default", "io.kubernetes.pod.uid": "uid", agentLabel: "me",
		},
		Annotations: map[string]string{imageAnnotation: "lanyard.test/tool:1"}, LogPath: "main/2.log", Stdin: true, StdinOnce: true, Tty: true, Linux: got.Linux,
	}
	if diff := cmp.Diff(want.String(), got.String()); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func list(cpu, memory string) corev1.ResourceList {
	all := corev1.ResourceList{}
	if cpu != "" {
		all[corev1.ResourceCPU] = resource.MustParse(cpu)
	}
	if memory != "" {
		all[corev1.ResourceMemory] = resource.MustParse(memory)
	}
	return all
}

func TestResources(t *testing.T) {
	t.Parallel()
	const machine = 8 << 30
	for name, test := range map[string]struct {
		requests, limits corev1.ResourceList
		priority         int32
		want             *runtimeapi.LinuxContainerResources
	}{
		"none":                    {nil, nil, 0, &runtimeapi.LinuxContainerResources{CpuShares: 2, CpuPeriod: 100000, OomScoreAdj: 1000}},
		"requests":                {list("250m", "2Gi"), nil, 0, &runtimeapi.LinuxContainerResources{CpuShares: 256, CpuPeriod: 100000, OomScoreAdj: 750}},
		"only CPU":                {list("1", ""), nil, 0, &runtimeapi.LinuxContainerResources{CpuShares: 1024, CpuPeriod: 100000, OomScoreAdj: 999}},
		"all memory":              {list("", "8Gi"), nil, 0, &runtimeapi.LinuxContainerResources{CpuShares: 2, CpuPeriod: 100000, OomScoreAdj: 3}},
		"guaranteed":              {list("500m", "1Gi"), list("500m", "1Gi"), 0, &runtimeapi.LinuxContainerResources{CpuShares: 512, CpuPeriod: 100000, CpuQuota: 50000, MemoryLimitInBytes: 1 << 30, OomScoreAdj: -997}},
		"only limits":             {nil, list("2", "64Mi"), 0, &runtimeapi.LinuxContainerResources{CpuShares: 2048, CpuPeriod: 100000, CpuQuota: 200000, MemoryLimitInBytes: 64 << 20, OomScoreAdj: 999}},
		"little":                  {list("1m", ""), list("5m", ""), 0, &runtimeapi.LinuxContainerResources{CpuShares: 2, CpuPeriod: 100000, CpuQuota: 1000, OomScoreAdj: 999}},
		"much":                    {list("1000", ""), nil, 0, &runtimeapi.LinuxContainerResources{CpuShares: 262144, CpuPeriod: 100000, OomScoreAdj: 999}},
		"a priority buys nothing": {nil, nil, 2_000_001_000, &runtimeapi.LinuxContainerResources{CpuShares: 2, CpuPeriod: 100000, OomScoreAdj: 1000}},
	} {
		pod := podOf()
		pod.Spec.Priority = &test.priority
		pod.Spec.Containers[0].Resources = corev1.ResourceRequirements{Requests: test.requests, Limits: test.limits}
		pod.Status.QOSClass = qos.ComputePodQOS(pod)
		if got := resources(pod, &pod.Spec.Containers[0], machine); got.String() != test.want.String() {
			t.Errorf("%s: %v, want %v", name, got, test.want)
		}
	}
}

// TestLimits checks that the container gets its limits, and that it is killed above its memory limit.
func TestLimits(t *testing.T) {
	t.Parallel()
	r := newRuntime(t)
	files := []string{"/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/cpu/cpu.cfs_quota_us"}
	if unified() {
		files = []string{"/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/cpu.max"}
	}
	pod := podOf("cat", files[0], files[1], ";", "await", "/tmp/go", ";", "allocate", "268435456")
	pod.Spec.Containers[0].Resources.Limits = list("500m", "64Mi")
	ran := start(t, r, pod)
	// The runtime watches for the out-of-memory killer after the start has returned. It reports an earlier kill as one by a
	// signal. The limit may also kill the writer.
	_, _, _ = r.Exec(t.Context(), ran.id, []string{"/bin/tool", "write", "/tmp/go", ""}, patience)
	ended := ran.await(ran.id, Exited)
	for ended.Reason != "OOMKilled" && !settled(&ended, time.Now()) {
		ended = ran.await(ran.id, Exited)
	}
	if ended.ExitCode != 137 || ended.Reason != "OOMKilled" {
		t.Errorf("ended %+v", ended)
	}
	if log := ran.logs(ran.id, &corev1.PodLogOptions{}); !strings.HasPrefix(log, "67108864\n50000") {
		t.Errorf("the container sees limits\n%s", log)
	}
}

func TestDNS(t *testing.T) {
	t.Parallel()
	file := writeFile(t, t.TempDir(), "resolv.conf", "# comment\nnameserver 192.0.2.1\nnameserver 192.0.2.2\nnameserver 192.0.2.1\ndomain old.test\nsearch a.test b.test\noptions ndots:2 rotate\noptions edns0\njunk\nnameserver\n")
	r := &Runtime{config: Config{ResolvConf: file}}
	own := &corev1.PodDNSConfig{
		Nameservers: []string{"192.0.2.2", "192.0.2.3", "192.0.2.4"}, Searches: []string{"b.test", "c.test"},
		Options: []corev1.PodDNSConfigOption{{Name: "ndots", Value: ptr.To("5")}, {Name: "single-request"}},
	}
	machine := &runtimeapi.DNSConfig{Servers: []string{"192.0.2.1", "192.0.2.2"}, Searches: []string{"a.test", "b.test"}, Options: []string{"ndots:2", "rotate", "edns0"}}
	for _, test := range []struct {
		policy corev1.DNSPolicy
		own    *corev1.PodDNSConfig
		want   *runtimeapi.DNSConfig
	}{
		{corev1.DNSDefault, nil, machine}, {corev1.DNSClusterFirst, nil, machine}, {"", nil, machine},
		{corev1.DNSNone, own, &runtimeapi.DNSConfig{Servers: own.Nameservers, Searches: own.Searches, Options: []string{"ndots:5", "single-request"}}},
		{corev1.DNSDefault, own, &runtimeapi.DNSConfig{
			Servers: []string{"192.0.2.1", "192.0.2.2", "192.0.2.3"}, Searches: []string{"a.test", "b.test", "c.test"}, Options: []string{"rotate", "edns0", "ndots:5", "single-request"},
		}},
	} {
		got, err := r.dnsConfig(&corev1.Pod{Spec: corev1.PodSpec{DNSPolicy: test.policy, DNSConfig: test.own}})
		if err != nil || got.String() != test.want.String() {
			t.Errorf("%s: %v, %v; want %v", test.policy, got, err, test.want)
		}
	}
	r.config.ResolvConf += "-missing"
	if got, err := r.dnsConfig(&corev1.Pod{}); err != nil || len(got.GetServers()) != 0 {
		t.Errorf("a file that is not there: %v, %v", got, err)
	}
	if !allLoopback([]string{"127.0.0.53", "::1"}) || allLoopback([]string{"127.0.0.1", "192.0.2.1"}) || allLoopback([]string{"name"}) {
		t.Error("addresses on loopback and others are confused")
	}
}

func FuzzResolvConf(f *testing.F) {
	f.Add("nameserver 192.0.2.1\nsearch a b\noptions ndots:5\n")
	f.Fuzz(func(t *testing.T, text string) {
		config, err := parseResolvConf(strings.NewReader(text))
		if err != nil {
			return
		}
		for _, server := range config.Servers {
			if server == "" || strings.ContainsAny(server, " \t\n") {
				t.Errorf("server %q", server)
			}
		}
	})
}

func TestDriverOf(t *testing.T) {
	t.Parallel()
	for config, want := range map[string]string{
		"": cgroupfs, "nonsense": cgroupfs, `{"systemdCgroup":true}`: systemd, `{"containerd":{"defaultRuntimeName":"runc","runtimes":{"runc":{"options":{"SystemdCgroup":true}}}}}`: systemd,
		`{"containerd":{"defaultRuntimeName":"runc","runtimes":{"runc":{"options":null},"other":{"options":{"SystemdCgroup":true}}}}}`: cgroupfs,
	} {
		if got := driverOf(config); got != want {
			t.Errorf("%s: %s", config, got)
		}
	}
}

func TestParseInfo(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		`{"pid":7,"runtimeSpec":{"linux":{"namespaces":[{"type":"pid","path":"/p"},{"type":"network","path":"/n"}]}}}`: "/n",
		`{"pid":7,"runtimeSpec":{"linux":{"namespaces":[{"type":"network"}]}}}`:                                        "/proc/7/ns/net",
		`{"pid":7,"image":"pause"}`: "/proc/7/ns/net", `{}`: "",
	} {
		if got, err := parseInfo(map[string]string{"info": text}); err != nil || got.network() != want {
			t.Errorf("%s: %q, %v", text, got.network(), err)
		}
	}
	if _, err := parseInfo(nil); err == nil {
		t.Error("a status without info was parsed")
	}
}

func TestValidate(t *testing.T) {
	t.Parallel()
	if _, err := Dial(t.Context(), Config{Endpoint: "unix:///run/x.sock", AgentID: "a", LogDir: "/logs"}); err != nil {
		t.Error(err)
	}
	_, err := Dial(t.Context(), Config{Endpoint: "tcp://127.0.0.1:1", AgentID: "a b", LogDir: "logs", CgroupDriver: "x"})
	for _, text := range []string{"endpoint", "agent ID", "log directory", "cgroup driver"} {
		if err == nil || !strings.Contains(err.Error(), text) {
			t.Errorf("no %s in %v", text, err)
		}
	}
}

func TestIdentityOfPod(t *testing.T) {
	t.Parallel()
	r := &Runtime{config: Config{AgentID: "me"}}
	for _, labels := range []map[string]string{nil, {agentLabel: "me"}, {agentLabel: "you", "io.kubernetes.pod.uid": "u"}, {"io.kubernetes.pod.uid": "u"}} {
		if r.isOurs(labels) {
			t.Errorf("%v are ours", labels)
		}
	}
	if !r.isOurs(r.sandboxLabels(&corev1.Pod{ObjectMeta: metav1.ObjectMeta{UID: "u"}})) {
		t.Error("our own are not ours")
	}
}
