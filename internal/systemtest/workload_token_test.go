//go:build linux

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
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
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

func (b *bench) config(t testing.TB) *rest.Config {
	t.Helper()
	config, err := clientcmd.BuildConfigFromFlags("", b.Kubeconfig())
	if err != nil {
		t.Fatal(err)
	}
	config.QPS = -1
	return config
}

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
