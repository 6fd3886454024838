// Promise: a container finds the environment, volumes and limits that the pod's spec asks for.

package systemtest

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const configManifests = `
apiVersion: v1
kind: ConfigMap
metadata: {name: settings}
data: {COLOR: blue, size: large}
---
apiVersion: v1
kind: Secret
metadata: {name: keys}
stringData: {PASSWORD: "hunter2", key: s3cret}
`

const environmentSpec = `
containers:
- name: c
  image: lanyard.test/tool:1
  command: [/bin/tool, print-env]
  args: [PLAIN, COMPOSED, COLOR, P_PASSWORD, SIZE, KEY, NAME, UID, IP, ACCOUNT, NODE, LABEL, CPU, MEMORY, NONE, KUBERNETES_SERVICE_PORT, ;, args, $(PLAIN), $$(PLAIN), $(ABSENT), ;, pwd]
  workingDir: /tmp
  resources: {limits: {cpu: 250m, memory: 64Mi}}
  envFrom: [{configMapRef: {name: settings}}, {secretRef: {name: keys}, prefix: P_}, {secretRef: {name: absent, optional: true}}]
  env:
  - {name: PLAIN, value: simple}
  - {name: COMPOSED, value: 'very $(PLAIN)'}
  - {name: SIZE, valueFrom: {configMapKeyRef: {name: settings, key: size}}}
  - {name: KEY, valueFrom: {secretKeyRef: {name: keys, key: key}}}
  - {name: NAME, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
  - {name: UID, valueFrom: {fieldRef: {fieldPath: metadata.uid}}}
  - {name: IP, valueFrom: {fieldRef: {fieldPath: status.podIP}}}
  - {name: ACCOUNT, valueFrom: {fieldRef: {fieldPath: spec.serviceAccountName}}}
  - {name: NODE, valueFrom: {fieldRef: {fieldPath: spec.nodeName}}}
  - {name: LABEL, valueFrom: {fieldRef: {fieldPath: "metadata.labels['app']"}}}
  - {name: CPU, valueFrom: {resourceFieldRef: {resource: limits.cpu, divisor: 1m}}}
  - {name: MEMORY, valueFrom: {resourceFieldRef: {resource: limits.memory}}}
  - {name: NONE, valueFrom: {configMapKeyRef: {name: settings, key: absent, optional: true}}}
`

func TestEnvironment(t *testing.T) {
	t.Parallel()
	b := commonSite(t).newNamespace(t)
	b.apply(t, configManifests)
	pod := podOf(t, "env", environmentSpec)
	pod.Labels = map[string]string{"app": "web"}
	got := b.run(t, pod)
	ended := b.awaitEnd(t, "env")
	config := b.config(t)
	_, port, err := net.SplitHostPort(strings.TrimPrefix(config.Host, "https://"))
	if err != nil {
		t.Fatal(err)
	}
	want := fmt.Sprintf(`PLAIN=simple
COMPOSED=very simple
COLOR=blue
P_PASSWORD=hunter2
SIZE=large
KEY=s3cret
NAME=env
UID=%s
IP=%s
ACCOUNT=default
NODE=here
LABEL=web
CPU=250
MEMORY=67108864
KUBERNETES_SERVICE_PORT=%s
simple
$(PLAIN)
$(ABSENT)
/tmp
`, ended.UID, ended.Status.PodIP, port)
	if got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

const volumesSpec = `
securityContext: {runAsUser: 1000, runAsGroup: 3000%s}
initContainers:
- {name: first, image: lanyard.test/tool:1, args: [write, /shared/from-init, hello], volumeMounts: [{name: shared, mountPath: /shared}]}
containers:
- name: c
  image: lanyard.test/tool:1
  args: [id, ;, stat, /shared, /memory, /secret/key, /secret/P, /config/COLOR, /down/labels, /all/token, /all/ca, /all/me, /var/run/secrets/kubernetes.io/serviceaccount/token, ;,
    cat, /shared/from-init, ;, log, "", ;, cat, /down/labels, ;, log, "", ;, cat, /all/me, ;, log, "", ;, cat, /config/COLOR, ;, log, "", ;, cat, /host/file, /all/token]
  volumeMounts:
  - {name: shared, mountPath: /shared}
  - {name: memory, mountPath: /memory}
  - {name: secret, mountPath: /secret}
  - {name: config, mountPath: /config}
  - {name: down, mountPath: /down}
  - {name: all, mountPath: /all, readOnly: true}
  - {name: host, mountPath: /host, readOnly: true}
volumes:
- {name: shared, emptyDir: {}}
- {name: memory, emptyDir: {medium: Memory, sizeLimit: 1Mi}}
- {name: secret, secret: {secretName: keys, defaultMode: 0440, items: [{key: key, path: key}, {key: PASSWORD, path: P, mode: 0400}]}}
- {name: config, configMap: {name: settings}}
- {name: down, downwardAPI: {items: [{path: labels, fieldRef: {fieldPath: metadata.labels}}]}}
- {name: host, hostPath: {path: %s, type: Directory}}
- name: all
  projected:
    sources:
    - serviceAccountToken: {path: token, audience: vault, expirationSeconds: 900}
    - configMap: {name: kube-root-ca.crt, items: [{key: ca.crt, path: ca}]}
    - downwardAPI: {items: [{path: me, fieldRef: {fieldPath: metadata.name}}]}
`

// TestVolumes reads every kind of volume in a container, with the owners and modes of the files, with and without an
// fsGroup.
func TestVolumes(t *testing.T) {
	t.Parallel()
	b := commonSite(t).newNamespace(t)
	b.apply(t, configManifests)
	host := t.TempDir()
	if err := os.WriteFile(filepath.Join(host, "file"), []byte("of the host\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	makeReadable(t, host)
	tests := map[string]struct{ group, files string }{
		"user": {"", `uid=1000 gid=3000 groups=3000
/shared drwxrwxrwx 0 0
/memory drwxrwxrwx 0 0
/secret/key -r--r----- 0 0
/secret/P -r-------- 0 0
/config/COLOR -rw-r--r-- 0 0
/down/labels -rw-r--r-- 0 0
/all/token -rw------- 1000 0
/all/ca -rw-r--r-- 0 0
/all/me -rw-r--r-- 0 0
/var/run/secrets/kubernetes.io/serviceaccount/token -rw------- 1000 0
hello
app="web"
user
blue
of the host
`},
		"group": {", fsGroup: 2000", `uid=1000 gid=3000 groups=2000,3000
/shared dgrwxrwxrwx 0 2000
/memory dgrwxrwxrwx 0 2000
/secret/key -r--r----- 0 2000
/secret/P -r--r----- 0 2000
/config/COLOR -rw-r--r-- 0 2000
/down/labels -rw-r--r-- 0 2000
/all/token -rw-r----- 1000 2000
/all/ca -rw-r--r-- 0 2000
/all/me -rw-r--r-- 0 2000
/var/run/secrets/kubernetes.io/serviceaccount/token -rw-r----- 1000 2000
hello
app="web"
group
blue
of the host
`},
	}
	for name, test := range tests {
		pod := podOf(t, name, fmt.Sprintf(volumesSpec, test.group, host))
		pod.Labels = map[string]string{"app": "web"}
		b.create(t, pod)
	}
	for name, test := range tests {
		// The token is valid only while the pod exists.
		b.awaitEnd(t, name)
		got, token := b.kubectl(t, "logs", name), ""
		if i := strings.LastIndex(got, "\n") + 1; i > 0 {
			got, token = got[:i], got[i:]
		}
		if got != test.files {
			t.Errorf("%s: got\n%s, want\n%s", name, got, test.files)
		}
		review := &authenticationv1.TokenReview{Spec: authenticationv1.TokenReviewSpec{Token: token, Audiences: []string{"vault"}}}
		answer, err := b.Client().AuthenticationV1().TokenReviews().Create(t.Context(), review, metav1.CreateOptions{})
		if err != nil || !answer.Status.Authenticated || answer.Status.User.Extra["authentication.kubernetes.io/pod-name"][0] != name {
			t.Errorf("%s: the token for vault: %+v, %v", name, answer.Status, err)
		}
	}
	b.kubectl(t, "delete", "pods", "--all")
}

// makeReadable gives all users access to a temporary directory.
func makeReadable(t *testing.T, dir string) {
	t.Helper()
	for ; dir != os.TempDir() && dir != "/"; dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
}

// TestSecurityContext checks the effects of security contexts, host namespaces and limits in the container.
func TestSecurityContext(t *testing.T) {
	t.Parallel()
	b := commonSite(t).newNamespace(t)
	capabilities := func(log string) string {
		return regexp.MustCompile(`(?m)^CapEff:\s+([0-9a-f]+)$`).FindStringSubmatch(log + "\nCapEff:\t0")[1]
	}
	spec := func(context string) string {
		return "containers: [{name: c, image: lanyard.test/tool:1, args: [cat, /proc/self/status], securityContext: " + context + "}]"
	}
	for _, pod := range []*corev1.Pod{
		podOf(t, "sealed", "containers: [{name: c, image: lanyard.test/tool:1, args: [write, /x, y], securityContext: {readOnlyRootFilesystem: true}}]"),
		podOf(t, "open", "", "write", "/x", "y"),
		podOf(t, "plain", spec("{}")),
		podOf(t, "powerless", spec("{capabilities: {drop: [ALL]}}")),
		podOf(t, "networker", spec("{capabilities: {drop: [ALL], add: [NET_ADMIN]}}")),
		podOf(t, "user", spec("{runAsUser: 1000, allowPrivilegeEscalation: false}")),
		podOf(t, "limited", "containers: [{name: c, image: lanyard.test/tool:1, resources: {limits: {memory: 48Mi, cpu: 500m}}}]"),
		podOf(t, "on-host", "hostNetwork: true", "ls", "/proc/self/ns", ";", "hostname"),
		podOf(t, "apart", "hostname: elsewhere", "ls", "/proc/self/ns", ";", "interfaces", ";", "hostname"),
	} {
		b.create(t, pod)
	}
	if ended := b.awaitEnd(t, "sealed"); ended.Status.Phase != corev1.PodFailed || !strings.Contains(b.kubectl(t, "logs", "sealed"), "read-only file system") {
		t.Errorf("readOnlyRootFilesystem: %+v", ended.Status)
	}
	if ended := b.awaitEnd(t, "open"); ended.Status.Phase != corev1.PodSucceeded {
		t.Errorf("a root file system that is not read-only: %+v", ended.Status)
	}
	log := func(name string) string {
		b.awaitEnd(t, name)
		return b.kubectl(t, "logs", name)
	}
	if got := capabilities(log("plain")); strings.Trim(got, "0") == "" {
		t.Errorf("root has capabilities %s", got)
	}
	for name, want := range map[string]string{"powerless": "0000000000000000", "networker": "0000000000001000", "user": "0000000000000000"} {
		if got := capabilities(log(name)); got != want {
			t.Errorf("%s has capabilities %s, want %s", name, got, want)
		}
	}
	if got := log("user"); !strings.Contains(got, "NoNewPrivs:\t1") || !regexp.MustCompile(`Uid:\t1000\t1000`).MatchString(got) {
		t.Errorf("allowPrivilegeEscalation: false, runAsUser: 1000:\n%s", got)
	}
	here, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	network, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	if got := log("on-host"); !strings.HasSuffix(got, "\n"+here+"\n") || !strings.Contains(got, "-> "+network+"\n") {
		t.Errorf("hostNetwork: %s", got)
	}
	if pod := b.awaitEnd(t, "on-host"); pod.Status.PodIP != "127.0.0.2" {
		t.Errorf("hostNetwork: IP %s", pod.Status.PodIP)
	}
	apart := b.awaitEnd(t, "apart")
	if got := log("apart"); !strings.HasSuffix(got, "\nelsewhere\n") || !strings.Contains(got, "eth0 "+apart.Status.PodIP+"/") || strings.Contains(got, network) {
		t.Errorf("a pod network: %s", got)
	}
	b.awaitRunning(t, "limited")
	memory, _, code := b.try(t, "exec", "limited", "--", "/bin/tool", "cat", "/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/cpu/cpu.cfs_quota_us")
	if code != 0 { // cgroup v2
		memory = b.exec(t, "limited", "cat", "/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/cpu.max")
	}
	if !regexp.MustCompile(`^50331648\n50000( 100000)?\n$`).MatchString(memory) {
		t.Errorf("limits: %q", memory)
	}
	b.kubectl(t, "delete", "pods", "--all", "--now")
}

// TestRestrictedPod runs a pod that the strictest Pod Security Standard admits, and reads its token. The same pod with
// allowPrivilegeEscalation is refused.
func TestRestrictedPod(t *testing.T) {
	t.Parallel()
	b := commonSite(t).newNamespace(t)
	b.kubectl(t, "label", "namespace", b.namespace, "pod-security.kubernetes.io/enforce=restricted")
	const spec = `
securityContext: {runAsUser: 1000, runAsNonRoot: true, seccompProfile: {type: RuntimeDefault}}
containers:
- {name: c, image: lanyard.test/tool:1, args: [id, ;, stat, /var/run/secrets/kubernetes.io/serviceaccount/token], securityContext: {allowPrivilegeEscalation: %t, capabilities: {drop: [ALL]}}}
`
	_, err := b.Client().CoreV1().Pods(b.namespace).Create(t.Context(), podOf(t, "lax", fmt.Sprintf(spec, true)), metav1.CreateOptions{})
	if !apierrors.IsForbidden(err) || !strings.Contains(err.Error(), `violates PodSecurity "restricted:latest": allowPrivilegeEscalation != false`) {
		t.Errorf("a pod that may gain privileges: %v", err)
	}
	const want = "uid=1000 gid=0 groups=0\n/var/run/secrets/kubernetes.io/serviceaccount/token -rw------- 1000 0\n"
	if got := b.run(t, podOf(t, "strict", fmt.Sprintf(spec, false))); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}
