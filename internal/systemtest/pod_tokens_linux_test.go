// Promise: a container's token is renewed in time, changes reach its files, and the token ends with the pod.

package systemtest

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
)

const tokenFile = "/var/run/secrets/kubernetes.io/serviceaccount/token"

// dashboardManifest has the pod of docs/walk.md with its account and permissions.
const dashboardManifest = `
apiVersion: v1
kind: ServiceAccount
metadata: {name: dashboard-sa}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: pod-reader}
rules: [{apiGroups: [""], resources: [pods], verbs: [get, list]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: dashboard-reads-pods}
subjects: [{kind: ServiceAccount, name: dashboard-sa}]
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: pod-reader}
---
apiVersion: v1
kind: Pod
metadata: {name: my-dashboard}
spec:
  serviceAccountName: dashboard-sa
  containers:
  - {name: my-dashboard, image: my-dashboard, imagePullPolicy: IfNotPresent, args: [-every=200ms]}
`

// tokenOnDisk reads a pod's token from the node's disk, as root of that machine could.
func (b *podNamespace) tokenOnDisk(t testing.TB, uid types.UID) string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(b.root, "volumes", string(uid), "volumes", "projected", "*", "token"))
	if err != nil || len(files) != 1 {
		t.Fatalf("tokens of %s: %q, %v", uid, files, err)
	}
	token, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	return string(token)
}

// TestDashboard runs the pod of docs/walk.md until its first token has expired, and deletes it.
func TestDashboard(t *testing.T) {
	t.Parallel()
	b := shortTokenSite(t).newNamespace(t)
	b.apply(t, dashboardManifest)
	pod := b.awaitRunning(t, "my-dashboard")
	started := time.Now()
	token := b.tokenOnDisk(t, pod.UID)
	me := "I am system:serviceaccount:" + b.namespace + ":dashboard-sa"
	output := b.stream(t, "logs", "-f", "my-dashboard")
	output.await(me)
	output.await("pods: 1 in namespace " + b.namespace)
	output.await(fmt.Sprintf(`secrets: secrets is forbidden: User %q cannot list resource "secrets" in API group "" in the namespace %q`, strings.TrimPrefix(me, "I am "), b.namespace))

	c := bearer(t, b.config(t), token)
	eventually(t, "the first token expires", func(context.Context) bool {
		return c.do(t, http.MethodPost, whoAmIPath, `{}`).code == http.StatusUnauthorized
	})
	if lived := time.Since(started); lived > shortTokenLife+2*time.Second {
		t.Errorf("the first token was valid for %v", lived)
	}
	if next := b.tokenOnDisk(t, pod.UID); next == token {
		t.Error("the volume still holds the expired token")
	}
	// The running program reads its token once a minute, as client-go does, so it still has the expired one.
	if got := b.kubectl(t, "exec", "my-dashboard", "--", "/bin/dashboard", "-every=0"); !strings.HasPrefix(got, me+"\n") {
		t.Errorf("a program that starts after the first token has expired: %s", got)
	}
	if now := b.awaitRunning(t, "my-dashboard"); now.Status.ContainerStatuses[0].RestartCount != 0 {
		t.Errorf("restarted: %+v", now.Status.ContainerStatuses)
	}
	b.awaitEvent(t, "my-dashboard", "TokenRenewed", "")
	b.kubectl(t, "delete", "pod", "my-dashboard", "--now")
	output.end()
}

// TestTokenEndsWithItsPod uses a copy of a pod's token from outside while the pod is deleted.
func TestTokenEndsWithItsPod(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		program string
		// bound limits the time from the DELETE. It includes the second of grace that --now gives.
		bound time.Duration
	}{
		"a program that ends on SIGTERM": {"sleep", time.Second},
		"a program that does not":        {"stubborn", 2 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := commonSite(t).newNamespace(t)
			b.create(t, podOf(t, "victim", "", test.program))
			pod := b.awaitRunning(t, "victim")
			tokenThief := b.useStolenToken(t, b.exec(t, "victim", "cat", tokenFile), pod)
			b.kubectl(t, "delete", "pod", "victim", "--now")
			returned := time.Now()
			refused, deleted := tokenThief.wait(t)
			t.Logf("the token was refused %v after the DELETE, and %v after kubectl returned", refused.Sub(deleted), refused.Sub(returned))
			if refused.Sub(returned) > time.Second {
				t.Errorf("the token was valid for %v after kubectl had returned", refused.Sub(returned))
			}
			if refused.Sub(deleted) > test.bound {
				t.Errorf("the token was valid for %v after the DELETE", refused.Sub(deleted))
			}
		})
	}
}

// tokenThief uses a token until it is refused, and watches its pod.
type tokenThief struct {
	done             sync.WaitGroup
	refused, deleted time.Time
}

// useStolenToken starts to use the token and to watch its pod.
func (b *podNamespace) useStolenToken(t *testing.T, token string, pod *corev1.Pod) *tokenThief {
	t.Helper()
	v, c := &tokenThief{}, bearer(t, b.config(t), token)
	if got := c.do(t, http.MethodPost, whoAmIPath, `{}`); got.code != http.StatusCreated || !strings.Contains(string(got.body), pod.Name) {
		t.Fatalf("the copy of the token: %s", got)
	}
	watching, err := b.Client().CoreV1().Pods(b.namespace).Watch(t.Context(), metav1.ListOptions{ResourceVersion: pod.ResourceVersion})
	if err != nil {
		t.Fatal(err)
	}
	v.done.Go(func() {
		defer watching.Stop()
		for event := range watching.ResultChan() {
			if now, ok := event.Object.(*corev1.Pod); ok && (now.DeletionTimestamp != nil || event.Type == watch.Deleted) {
				v.deleted = time.Now()
				return
			}
		}
	})
	v.done.Go(func() {
		for t.Context().Err() == nil && v.refused.IsZero() {
			if got, err := c.try(t.Context(), http.MethodPost, whoAmIPath, []byte(`{}`)); err == nil && got.code == http.StatusUnauthorized {
				v.refused = time.Now()
			}
		}
	})
	return v
}

// wait returns when the token was refused and when the pod's deletion began.
func (v *tokenThief) wait(t *testing.T) (refused, deleted time.Time) {
	t.Helper()
	ended := make(chan struct{})
	go func() { v.done.Wait(); close(ended) }()
	select {
	case <-ended:
		return v.refused, v.deleted
	case <-time.After(waitLimit):
		t.Fatal("the token of a deleted pod is still accepted")
	}
	return time.Time{}, time.Time{}
}

// TestAutomount checks that no token is mounted if the account or the pod forbids it, and that the pod's field overrides the
// account's.
func TestAutomount(t *testing.T) {
	t.Parallel()
	b := commonSite(t).newNamespace(t)
	b.apply(t, "apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: without}\nautomountServiceAccountToken: false\n")
	tests := map[string]struct {
		spec    string
		mounted bool
	}{
		"default":               {"", true},
		"account-no":            {"serviceAccountName: without", false},
		"pod-no":                {"automountServiceAccountToken: false", false},
		"account-yes-pod-no":    {"automountServiceAccountToken: false\nserviceAccountName: default", false},
		"account-no-pod-yes":    {"automountServiceAccountToken: true\nserviceAccountName: without", true},
		"account-no-pod-no-too": {"automountServiceAccountToken: false\nserviceAccountName: without", false},
	}
	for name, test := range tests {
		b.create(t, podOf(t, name, test.spec, "sleep"))
	}
	for name, test := range tests {
		pod := b.awaitRunning(t, name)
		mounts := b.exec(t, name, "cat", "/proc/self/mountinfo")
		files, _, code := b.try(t, "exec", name, "--", "/bin/tool", "ls", filepath.Dir(tokenFile))
		if got := strings.Contains(mounts, "serviceaccount"); got != test.mounted {
			t.Errorf("%s: mounted: %v", name, got)
		}
		if got := code == 0 && strings.Contains(files, "token "); got != test.mounted {
			t.Errorf("%s: files (exit code %d):\n%s", name, code, files)
		}
		onHost, err := filepath.Glob(filepath.Join(b.root, "volumes", string(pod.UID), "volumes", "*", "*"))
		if err != nil || len(onHost) > 0 != test.mounted || len(pod.Spec.Volumes) > 0 != test.mounted {
			t.Errorf("%s: volumes %q of %d, %v", name, onHost, len(pod.Spec.Volumes), err)
		}
	}
	b.kubectl(t, "delete", "pods", "--all", "--now")
}

// TestRenewalNotifiesPrograms notifies programs of a new token in each supported way.
func TestRenewalNotifiesPrograms(t *testing.T) {
	t.Parallel()
	b := shortTokenSite(t).newNamespace(t)
	before := b.metric(t, `lanyard_token_renewals_total{result="success"}`)
	for name, test := range map[string]struct {
		how  string
		args []string
	}{
		"signal":  {"signal:HUP", []string{"on-hup", "/tmp/hups"}},
		"command": {"exec:/bin/tool write /tmp/told yes", []string{"await", "/tmp/told", ";", "log", "told", ";", "sleep"}},
		"nothing": {"", []string{"watch-file", tokenFile}},
	} {
		pod := podOf(t, name, "", test.args...)
		if test.how != "" {
			pod.Annotations = map[string]string{"identity.lanyard.dev/on-renew": test.how}
		}
		b.create(t, pod)
	}
	for _, name := range []string{"signal", "command", "nothing"} {
		b.awaitRunning(t, name)
	}
	for name, want := range map[string]string{"signal": "hup", "command": "told"} {
		s := b.stream(t, "logs", "-f", name)
		s.await(want)
		s.stop()
		b.awaitEvent(t, name, "TokenRenewed", "Renewed the token in volume kube-api-access-")
	}
	tokens := b.stream(t, "logs", "-f", "nothing")
	first, _ := tokens.next()
	if second, ok := tokens.next(); !ok || first == second || strings.Count(second, ".") != 2 {
		t.Error("the file has no second token")
	}
	tokens.stop()
	if after := b.metric(t, `lanyard_token_renewals_total{result="success"}`); after < before+3 {
		t.Errorf("%v renewals before, %v after", before, after)
	}
	b.kubectl(t, "delete", "pods", "--all", "--now")
}

const watchersSpec = `
containers:
- {name: config, image: lanyard.test/tool:1, args: [watch-file, /config/COLOR], volumeMounts: [{name: config, mountPath: /config}]}
- {name: secret, image: lanyard.test/tool:1, args: [watch-file, /all/key], volumeMounts: [{name: all, mountPath: /all}]}
- {name: ca, image: lanyard.test/tool:1, args: [watch-file, /var/run/secrets/kubernetes.io/serviceaccount/ca.crt]}
volumes:
- {name: config, configMap: {name: settings}}
- {name: all, projected: {sources: [{secret: {name: keys}}, {configMap: {name: settings}}]}}
`

// TestChangesReachFiles changes objects that a running pod mounts.
func TestChangesReachFiles(t *testing.T) {
	t.Parallel()
	b := commonSite(t).newNamespace(t)
	b.apply(t, configManifests)
	b.create(t, podOf(t, "watchers", watchersSpec))
	b.awaitRunning(t, "watchers")
	follow := func(container, first string) *stream {
		s := b.stream(t, "logs", "-f", "watchers", "-c", container)
		s.await(first)
		return s
	}
	config, secret, ca := follow("config", "blue"), follow("secret", "s3cret"), follow("ca", "-----END CERTIFICATE-----")
	defer config.stop()
	defer secret.stop()
	defer ca.stop()
	b.kubectl(t, "patch", "configmap", "settings", "-p", `{"data":{"COLOR":"green"}}`)
	b.kubectl(t, "patch", "secret", "keys", "-p", `{"stringData":{"key":"changed"}}`)
	config.await("green")
	secret.await("changed")
	// The authority restores its CA at once, so the agent may miss one change, but not many of them.
	maps := b.Client().CoreV1().ConfigMaps(b.namespace)
	wrong := fmt.Appendf(nil, `{"data":{"ca.crt":%q}}`, "none\n")
	eventually(t, "the file has the other CA", func(ctx context.Context) bool {
		if _, err := maps.Patch(ctx, rootCAMap, types.MergePatchType, wrong, metav1.PatchOptions{}); err != nil {
			t.Fatal(err)
		}
		for len(ca.lines) > 0 {
			if line := <-ca.lines; line == "none" {
				return true
			}
		}
		return false
	})
	ca.await("-----END CERTIFICATE-----")
	b.kubectl(t, "delete", "pod", "watchers", "--now")
}
