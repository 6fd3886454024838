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

// dashboard is the chapter's pod, its account and what that may do.
const dashboard = `
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

// copyOfToken reads a pod's token as root of the machine would steal it.
func (b *bench) copyOfToken(t testing.TB, uid types.UID) string {
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

// TestDashboard is the chapter's pod from its manifest to its end, its first token's end in between.
func TestDashboard(t *testing.T) {
	t.Parallel()
	b := briefSite(t).bench(t)
	b.apply(t, dashboard)
	pod := b.awaitRunning(t, "my-dashboard")
	started := time.Now()
	token := b.copyOfToken(t, pod.UID)
	me := "I am system:serviceaccount:" + b.namespace + ":dashboard-sa"
	says := b.stream(t, "logs", "-f", "my-dashboard")
	says.await(me)
	says.await("pods: 1 in namespace " + b.namespace)
	says.await(fmt.Sprintf(`secrets: secrets is forbidden: User %q cannot list resource "secrets" in API group "" in the namespace %q`, strings.TrimPrefix(me, "I am "), b.namespace))

	c := bearer(t, b.config(t), token)
	eventually(t, "the first token's end", func(context.Context) bool {
		return c.do(t, http.MethodPost, whoAmIPath, `{}`).code == http.StatusUnauthorized
	})
	if lived := time.Since(started); lived > tokenLife+2*time.Second {
		t.Errorf("the first token was good for %v", lived)
	}
	if next := b.copyOfToken(t, pod.UID); next == token {
		t.Error("the token in the volume is the one that has ended")
	}
	// The program that has run all along reads its token once a minute, as client-go does, and a real one outlives that.
	if got := b.kubectl(t, "exec", "my-dashboard", "--", "/bin/dashboard", "-every=0"); !strings.HasPrefix(got, me+"\n") {
		t.Errorf("a program that starts after the first token's end: %s", got)
	}
	if now := b.awaitRunning(t, "my-dashboard"); now.Status.ContainerStatuses[0].RestartCount != 0 {
		t.Errorf("restarted: %+v", now.Status.ContainerStatuses)
	}
	b.awaitEvent(t, "my-dashboard", "TokenRenewed", "")
	b.kubectl(t, "delete", "pod", "my-dashboard", "--now")
	says.end()
}

// TestTokenEndsWithItsPod holds a copy of the token outside, and uses it all the while its pod is deleted.
func TestTokenEndsWithItsPod(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		program string
		// bound is on the time from the DELETE; to stubborn programs it comes after the second that --now leaves them.
		bound time.Duration
	}{
		"a program that ends on SIGTERM": {"sleep", time.Second},
		"a program that does not":        {"stubborn", 2 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := commonSite(t).bench(t)
			b.create(t, podOf(t, "victim", "", test.program))
			pod := b.awaitRunning(t, "victim")
			thief := b.steal(t, b.exec(t, "victim", "cat", tokenFile), pod)
			b.kubectl(t, "delete", "pod", "victim", "--now")
			returned := time.Now()
			refused, deleted := thief.wait(t)
			t.Logf("the token was refused %v after the DELETE, and %v after kubectl returned", refused.Sub(deleted), refused.Sub(returned))
			if refused.Sub(returned) > time.Second {
				t.Errorf("the token was good for %v after kubectl had returned", refused.Sub(returned))
			}
			if refused.Sub(deleted) > test.bound {
				t.Errorf("the token was good for %v after the DELETE", refused.Sub(deleted))
			}
		})
	}
}

// thief uses a token until it is refused, and watches its pod.
type thief struct {
	done             sync.WaitGroup
	refused, deleted time.Time
}

func (b *bench) steal(t *testing.T, token string, pod *corev1.Pod) *thief {
	t.Helper()
	v, c := &thief{}, bearer(t, b.config(t), token)
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

func (v *thief) wait(t *testing.T) (refused, deleted time.Time) {
	t.Helper()
	ended := make(chan struct{})
	go func() { v.done.Wait(); close(ended) }()
	select {
	case <-ended:
		return v.refused, v.deleted
	case <-time.After(patience):
		t.Fatal("the token of a deleted pod is good still")
	}
	return time.Time{}, time.Time{}
}

// TestAutomount holds that nothing is mounted where the account or the pod says so, and that the pod's word counts.
func TestAutomount(t *testing.T) {
	t.Parallel()
	b := commonSite(t).bench(t)
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

// TestRenewalIsTold has programs told of the renewal in each way there is.
func TestRenewalIsTold(t *testing.T) {
	t.Parallel()
	b := briefSite(t).bench(t)
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
		t.Error("the file's token was not followed by another")
	}
	tokens.stop()
	if after := b.metric(t, `lanyard_token_renewals_total{result="success"}`); after < before+3 {
		t.Errorf("%v renewals before, %v after", before, after)
	}
	b.kubectl(t, "delete", "pods", "--all", "--now")
}

const watchers = `
containers:
- {name: config, image: lanyard.test/tool:1, args: [watch-file, /config/COLOR], volumeMounts: [{name: config, mountPath: /config}]}
- {name: secret, image: lanyard.test/tool:1, args: [watch-file, /all/key], volumeMounts: [{name: all, mountPath: /all}]}
- {name: ca, image: lanyard.test/tool:1, args: [watch-file, /var/run/secrets/kubernetes.io/serviceaccount/ca.crt]}
volumes:
- {name: config, configMap: {name: settings}}
- {name: all, projected: {sources: [{secret: {name: keys}}, {configMap: {name: settings}}]}}
`

// TestChangesReachFiles changes what a running pod mounts.
func TestChangesReachFiles(t *testing.T) {
	t.Parallel()
	b := commonSite(t).bench(t)
	b.apply(t, sources)
	b.create(t, podOf(t, "watchers", watchers))
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
	// The authority puts its CA back at once, so that what is between may be passed over; not again and again.
	maps := b.Client().CoreV1().ConfigMaps(b.namespace)
	wrong := fmt.Appendf(nil, `{"data":{"ca.crt":%q}}`, "none\n")
	eventually(t, "the file has another CA", func(ctx context.Context) bool {
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
