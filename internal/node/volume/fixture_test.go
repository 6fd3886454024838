//go:build linux

package volume

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/moby/sys/mountinfo"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"lanyard.dev/internal/nodeaccess"
)

// fakeCluster has objects and an authority that issues tokens, and records what Volumes reports.
type fakeCluster struct {
	root string

	mu         sync.Mutex
	secrets    map[string]map[string][]byte
	configMaps map[string]map[string]string
	held       map[types.UID]bool
	listeners  []func(string, nodeaccess.Reference)
	issued     int
	away       bool
	renewed    []string
	failed     []string
}

func newFakeCluster(t *testing.T) *fakeCluster {
	t.Helper()
	w := &fakeCluster{root: filepath.Join(t.TempDir(), "pods"), held: map[types.UID]bool{}}
	w.secrets = map[string]map[string][]byte{"login": {"user": []byte("u")}}
	w.configMaps = map[string]map[string]string{"kube-root-ca.crt": {"ca.crt": "CA 1"}}
	t.Cleanup(func() {
		mounts, err := mountinfo.GetMounts(mountinfo.PrefixFilter(w.root))
		if err != nil || len(mounts) > 0 {
			t.Errorf("%d mounts were left, %v", len(mounts), err)
		}
		for _, mount := range mounts {
			_ = unmount(mount.Mountpoint)
		}
	})
	return w
}

func (w *fakeCluster) Secret(_ context.Context, _, name string) (*corev1.Secret, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if data, ok := w.secrets[name]; ok {
		return &corev1.Secret{Data: data}, nil
	}
	return nil, apierrors.NewNotFound(corev1.Resource("secret"), name)
}

func (w *fakeCluster) ConfigMap(_ context.Context, _, name string) (*corev1.ConfigMap, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if data, ok := w.configMaps[name]; ok {
		return &corev1.ConfigMap{Data: data}, nil
	}
	return nil, apierrors.NewNotFound(corev1.Resource("configmap"), name)
}

func (w *fakeCluster) Account(string, string) types.UID { return "" }

func (w *fakeCluster) Hold(pod *corev1.Pod) { w.do(func() { w.held[pod.UID] = true }) }

func (w *fakeCluster) Release(uid types.UID) { w.do(func() { delete(w.held, uid) }) }

func (w *fakeCluster) OnChange(f func(string, nodeaccess.Reference)) {
	w.do(func() { w.listeners = append(w.listeners, f) })
}

func (w *fakeCluster) do(change func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	change()
}

func (w *fakeCluster) setConfigMap(name string, data map[string]string) {
	w.do(func() {
		w.configMaps[name] = data
		if data == nil {
			delete(w.configMaps, name)
		}
	})
	for _, f := range w.listeners {
		f("shop", nodeaccess.Reference{Kind: nodeaccess.ConfigMap, Name: name})
	}
}

func (w *fakeCluster) request(_ context.Context, namespace, account string, r *authenticationv1.TokenRequest) (*authenticationv1.TokenRequest, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.away {
		return nil, errors.New("connection refused")
	}
	w.issued++
	now := time.Now()
	encode := base64.RawURLEncoding.EncodeToString
	r = r.DeepCopy()
	r.Status.ExpirationTimestamp = metav1.NewTime(now.Add(time.Duration(*r.Spec.ExpirationSeconds) * time.Second))
	r.Status.Token = encode([]byte(`{"alg":"ES256"}`)) + "." + encode(fmt.Appendf(nil,
		`{"sub":"system:serviceaccount:%s:%s","aud":["x"],"iat":%d,"exp":%d,"jti":"%d","kubernetes.io":{"namespace":%q,"serviceaccount":{"name":%q,"uid":"a"},"pod":{"name":%q,"uid":%q}}}`,
		namespace, account, now.Unix(), r.Status.ExpirationTimestamp.Unix(), w.issued, namespace, account, r.Spec.BoundObjectRef.Name, r.Spec.BoundObjectRef.UID)) + ".c2ln"
	return r, nil
}

func (w *fakeCluster) volumes() *Volumes {
	v := New(Config{
		Root: w.root, Objects: w, Request: w.request,
		Failed: func(pod *corev1.Pod, err error) {
			w.do(func() { w.failed = append(w.failed, pod.Name+" "+err.Error()) })
		},
	})
	v.OnRenew(func(pod *corev1.Pod, volumes []string) {
		w.do(func() { w.renewed = append(w.renewed, pod.Name+" "+strings.Join(volumes, ",")) })
	})
	return v
}

// run runs v in a bubble of simulated time until end is called.
func run(t *testing.T, v *Volumes) (end func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		v.Run(ctx)
	}()
	end = func() {
		cancel()
		<-ended
	}
	t.Cleanup(end)
	return end
}

// elapse lets simulated time pass, and waits until all goroutines of the bubble are idle.
func elapse(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func asRoot(t *testing.T) {
	t.Helper()
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("only root can mount file systems and give files away")
	}
}

func number[T any](n T) *T { return &n }

// dashboard returns a pod with the volume that admission adds to every pod, and more volumes.
func dashboard(more ...corev1.Volume) *corev1.Pod {
	access := corev1.Volume{Name: "access", VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{
		{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{Path: "token", ExpirationSeconds: number[int64](3607)}},
		{ConfigMap: &corev1.ConfigMapProjection{LocalObjectReference: corev1.LocalObjectReference{Name: "kube-root-ca.crt"}}},
	}}}}
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "dashboard", UID: "6f1c2f6e-0000-4000-8000-000000000001"},
		Spec:       corev1.PodSpec{ServiceAccountName: "dashboard-sa", Containers: []corev1.Container{{Name: "main"}}, Volumes: append([]corev1.Volume{access}, more...)},
	}
}

func volumeOf(name string, source corev1.VolumeSource) corev1.Volume {
	return corev1.Volume{Name: name, VolumeSource: source}
}

func setUp(t *testing.T, v *Volumes, pod *corev1.Pod) map[string]string {
	t.Helper()
	paths, err := v.SetUp(t.Context(), pod)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tearDown(t, v, pod.UID) })
	return paths
}

func tearDown(t *testing.T, v *Volumes, uid types.UID) {
	t.Helper()
	if err := v.TearDown(context.Background(), uid); err != nil {
		t.Error(err)
	}
}

func content(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Error(err)
	}
	return string(data)
}

type tokenRequest = authenticationv1.TokenRequest

func (w *fakeCluster) count() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.issued
}

func (w *fakeCluster) recorded(list *[]string) []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(*list)
}
