package nodeaccess_test

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"lanyard.dev/internal/nodeaccess"
	"lanyard.dev/internal/podannotation"
	"lanyard.dev/internal/rbac/bootstrap"
)

// use is one way in which a pod uses an object.
type use struct {
	kind nodeaccess.Kind
	how  string
	put  func(p *corev1.Pod, name string)
}

func local(name string) *corev1.LocalObjectReference { return &corev1.LocalObjectReference{Name: name} }

func volume(make func(name string) corev1.VolumeSource) func(*corev1.Pod, string) {
	return func(p *corev1.Pod, name string) {
		p.Spec.Volumes = append(p.Spec.Volumes, corev1.Volume{VolumeSource: make(name)})
	}
}

func projected(make func(name string) corev1.VolumeProjection) func(*corev1.Pod, string) {
	return volume(func(name string) corev1.VolumeSource {
		other := corev1.VolumeProjection{DownwardAPI: &corev1.DownwardAPIProjection{}}
		return corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{other, make(name)}}}
	})
}

func variable(name string, secret bool) []corev1.EnvVar {
	from := &corev1.EnvVarSource{ConfigMapKeyRef: &corev1.ConfigMapKeySelector{LocalObjectReference: *local(name)}}
	if secret {
		from = &corev1.EnvVarSource{SecretKeyRef: &corev1.SecretKeySelector{LocalObjectReference: *local(name)}}
	}
	return []corev1.EnvVar{{Name: "PLAIN", Value: name + "-not"}, {Name: "X", ValueFrom: from}}
}

func whole(name string, secret bool) []corev1.EnvFromSource {
	if secret {
		return []corev1.EnvFromSource{{SecretRef: &corev1.SecretEnvSource{LocalObjectReference: *local(name)}}}
	}
	return []corev1.EnvFromSource{{ConfigMapRef: &corev1.ConfigMapEnvSource{LocalObjectReference: *local(name)}}}
}

func uses() []use {
	all := []use{
		{nodeaccess.ServiceAccount, "account", func(p *corev1.Pod, name string) { p.Spec.ServiceAccountName = name }},
		{nodeaccess.Secret, "pull secret", func(p *corev1.Pod, name string) {
			p.Spec.ImagePullSecrets = append(p.Spec.ImagePullSecrets, *local(name))
		}},
		{nodeaccess.Secret, "volume", volume(func(n string) corev1.VolumeSource {
			return corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: n}}
		})},
		{nodeaccess.ConfigMap, "volume", volume(func(n string) corev1.VolumeSource {
			return corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: *local(n)}}
		})},
		{nodeaccess.Secret, "projected", projected(func(n string) corev1.VolumeProjection {
			return corev1.VolumeProjection{Secret: &corev1.SecretProjection{LocalObjectReference: *local(n)}}
		})},
		{nodeaccess.ConfigMap, "projected", projected(func(n string) corev1.VolumeProjection {
			return corev1.VolumeProjection{ConfigMap: &corev1.ConfigMapProjection{LocalObjectReference: *local(n)}}
		})},
	}
	for how, make := range map[string]func(n string) corev1.VolumeSource{
		"csi": func(n string) corev1.VolumeSource {
			return corev1.VolumeSource{CSI: &corev1.CSIVolumeSource{NodePublishSecretRef: local(n)}}
		},
		"azure file": func(n string) corev1.VolumeSource {
			return corev1.VolumeSource{AzureFile: &corev1.AzureFileVolumeSource{SecretName: n}}
		},
		"cephfs": func(n string) corev1.VolumeSource {
			return corev1.VolumeSource{CephFS: &corev1.CephFSVolumeSource{SecretRef: local(n)}}
		},
		"cinder": func(n string) corev1.VolumeSource {
			return corev1.VolumeSource{Cinder: &corev1.CinderVolumeSource{SecretRef: local(n)}}
		},
		"flex": func(n string) corev1.VolumeSource {
			return corev1.VolumeSource{FlexVolume: &corev1.FlexVolumeSource{SecretRef: local(n)}}
		},
		"iscsi": func(n string) corev1.VolumeSource {
			return corev1.VolumeSource{ISCSI: &corev1.ISCSIVolumeSource{SecretRef: local(n)}}
		},
		"rbd": func(n string) corev1.VolumeSource {
			return corev1.VolumeSource{RBD: &corev1.RBDVolumeSource{SecretRef: local(n)}}
		},
		"scaleio": func(n string) corev1.VolumeSource {
			return corev1.VolumeSource{ScaleIO: &corev1.ScaleIOVolumeSource{SecretRef: local(n)}}
		},
		"storageos": func(n string) corev1.VolumeSource {
			return corev1.VolumeSource{StorageOS: &corev1.StorageOSVolumeSource{SecretRef: local(n)}}
		},
	} {
		all = append(all, use{nodeaccess.Secret, how, volume(make)})
	}
	for _, secret := range []bool{true, false} {
		kind := nodeaccess.ConfigMap
		if secret {
			kind = nodeaccess.Secret
		}
		all = append(all,
			use{kind, "variable", func(p *corev1.Pod, n string) {
				p.Spec.Containers = append(p.Spec.Containers, corev1.Container{Env: variable(n, secret), EnvFrom: whole(n, secret)})
			}},
			use{kind, "init container", func(p *corev1.Pod, n string) {
				p.Spec.InitContainers = append(p.Spec.InitContainers, corev1.Container{EnvFrom: whole(n, secret)})
			}},
			use{kind, "ephemeral container", func(p *corev1.Pod, n string) {
				c := corev1.EphemeralContainerCommon{Env: variable(n, secret)}
				p.Spec.EphemeralContainers = append(p.Spec.EphemeralContainers, corev1.EphemeralContainer{EphemeralContainerCommon: c})
			}},
		)
	}
	return all
}

func TestEveryUseIsSeen(t *testing.T) {
	t.Parallel()
	for _, u := range uses() {
		p := pod("shop", "p", "one")
		u.put(p, "x")
		index := nodeaccess.NewPods(&source{})
		index.Set(p)
		if ok, _ := index.Belongs("one", u.kind, "shop", "x"); !ok {
			t.Errorf("kind %d as %s is not seen", u.kind, u.how)
		}
		for kind := nodeaccess.Pod; kind <= nodeaccess.ServiceAccount; kind++ {
			if ok, _ := index.Belongs("one", kind, "shop", "x-not"); ok {
				t.Errorf("%s: a plain value is taken for a reference", u.how)
			}
			if ok, _ := index.Belongs("one", kind, "shop", "x"); ok && kind != u.kind {
				t.Errorf("%s is also seen as kind %d", u.how, kind)
			}
		}
		index.Delete(&metav1.PartialObjectMetadata{ObjectMeta: p.ObjectMeta})
		if ok, _ := index.Belongs("one", u.kind, "shop", "x"); ok {
			t.Errorf("%s outlives its pod", u.how)
		}
	}
}

// expected is a pod with the objects that it uses.
type expected struct {
	pod  *corev1.Pod
	uses map[nodeaccess.Reference]bool
}

// naively computes the result of Belongs by a search of all pods.
func naively(pods map[string]expected, node string, kind nodeaccess.Kind, namespace, name string) bool {
	for _, p := range pods {
		if p.pod.Spec.NodeName != node || p.pod.Namespace != namespace {
			continue
		}
		if kind == nodeaccess.Pod && p.pod.Name == name || p.uses[nodeaccess.Reference{Kind: kind, Name: name}] {
			return true
		}
	}
	return false
}

func randomPod(r *rand.Rand, all []use) expected {
	made := expected{
		pod:  pod(fmt.Sprint("ns", r.IntN(2)), fmt.Sprint("p", r.IntN(8)), []string{"", "n0", "n1", "n2"}[r.IntN(4)]),
		uses: map[nodeaccess.Reference]bool{},
	}
	made.pod.Spec.ServiceAccountName = ""
	for i := range r.IntN(4) {
		u := all[r.IntN(len(all))]
		if u.kind == nodeaccess.ServiceAccount && i > 0 {
			continue // a pod has one account
		}
		name := fmt.Sprint("x", r.IntN(5))
		u.put(made.pod, name)
		made.uses[nodeaccess.Reference{Kind: u.kind, Name: name}] = true
	}
	if r.IntN(6) == 0 {
		mirror(made.pod)
		clear(made.uses)
	}
	return made
}

// TestIndexEqualsNaiveEvaluation changes pods and their nodes at random, and compares every answer after each change.
func TestIndexEqualsNaiveEvaluation(t *testing.T) {
	t.Parallel()
	for seed := range uint64(20) {
		r := rand.New(rand.NewPCG(seed, 1))
		all, pods, index := uses(), map[string]expected{}, nodeaccess.NewPods(&source{})
		for range 200 {
			change := randomPod(r, all)
			key := change.pod.Namespace + "/" + change.pod.Name
			if r.IntN(3) == 0 {
				index.Delete(change.pod)
				delete(pods, key)
			} else {
				index.Set(change.pod)
				pods[key] = change
			}
			compareAll(t, seed, index, pods)
		}
		for _, p := range pods {
			index.Delete(p.pod)
		}
		compareAll(t, seed, index, nil)
		if t.Failed() {
			return
		}
	}
}

func compareAll(t *testing.T, seed uint64, index *nodeaccess.Pods, pods map[string]expected) {
	t.Helper()
	for _, node := range []string{"", "n0", "n1", "n2"} {
		for kind := nodeaccess.Pod; kind <= nodeaccess.ServiceAccount; kind++ {
			for _, namespace := range []string{"ns0", "ns1"} {
				for i := range 8 {
					name := fmt.Sprint("x", i)
					if kind == nodeaccess.Pod {
						name = fmt.Sprint("p", i)
					}
					want := node != "" && naively(pods, node, kind, namespace, name)
					if got, err := index.Belongs(node, kind, namespace, name); got != want || err != nil {
						t.Errorf("seed %d: node %q, kind %d, %s/%s: %v, %v", seed, node, kind, namespace, name, got, err)
					}
				}
			}
		}
	}
}

// TestPodsOfNodes compares the pods of each node, and how many of them have not finished, with those that were set.
func TestPodsOfNodes(t *testing.T) {
	t.Parallel()
	index, want := nodeaccess.NewPods(&source{}), map[string]map[types.NamespacedName]nodeaccess.BoundPod{}
	r := rand.New(rand.NewPCG(1, 1))
	for i := range 500 {
		p := pod("ns", fmt.Sprint("p", r.IntN(20)), []string{"", "n0", "n1"}[r.IntN(3)])
		p.UID = types.UID(fmt.Sprint(i))
		bound := nodeaccess.BoundPod{UID: p.UID, Finished: r.IntN(2) == 0, Process: r.IntN(4) == 0}
		if bound.Finished {
			p.Status.Phase = corev1.PodFailed
		}
		if bound.Process {
			p.Annotations = map[string]string{podannotation.Process: "true"}
		}
		key := types.NamespacedName{Namespace: "ns", Name: p.Name}
		for _, pods := range want {
			delete(pods, key)
		}
		if r.IntN(3) == 0 {
			index.Delete(p)
		} else {
			index.Set(p)
			if want[p.Spec.NodeName] == nil {
				want[p.Spec.NodeName] = map[types.NamespacedName]nodeaccess.BoundPod{}
			}
			want[p.Spec.NodeName][key] = bound
		}
		for _, node := range []string{"n0", "n1"} {
			running := 0
			for _, b := range want[node] {
				if !b.Finished {
					running++
				}
			}
			if got := index.On(node); len(got) != len(want[node]) || len(got) > 0 && !maps.Equal(got, want[node]) || index.Running(node) != running {
				t.Fatalf("step %d: node %s has %v, %d running; want %v, %d", i, node, got, index.Running(node), want[node], running)
			}
		}
	}
	if got := index.On(""); len(got) > 0 {
		t.Errorf("pods without a node: %v", got)
	}
}

func BenchmarkSecretGet(b *testing.B) {
	for _, n := range []int{10, 10_000} {
		index := nodeaccess.NewPods(&source{})
		for i := range n {
			index.Set(pod(fmt.Sprint("ns", i%100), fmt.Sprint("p", i), fmt.Sprint("node", i%10),
				secretVolume(fmt.Sprint("s", i)), configMapVolume("kube-root-ca.crt")))
		}
		r := nodeaccess.NewRules(index, bootstrap.NodeRules())
		for node, want := range map[string]bool{"node7": true, "node8": false} {
			b.Run(fmt.Sprintf("pods=%d/allowed=%v", n, want), func(b *testing.B) {
				b.ReportAllocs()
				ask := core("get", "secrets", "ns7", "s7")
				for b.Loop() {
					if got, err := r.Decide(node, ask); got.Allowed != want || err != nil {
						b.Fatal(got, err)
					}
				}
			})
		}
	}
}

// BenchmarkSet measures the change of one pod: of its status, and of its node.
func BenchmarkSet(b *testing.B) {
	for _, n := range []int{10, 10_000} {
		index := nodeaccess.NewPods(&source{})
		for i := range n {
			index.Set(pod("ns", fmt.Sprint("p", i), "node", secretVolume(fmt.Sprint("s", i)), configMapVolume("kube-root-ca.crt")))
		}
		here, there := pod("ns", "p7", "node", secretVolume("s7")), pod("ns", "p7", "other", secretVolume("s7"))
		b.Run(fmt.Sprintf("pods=%d/status", n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				index.Set(here)
			}
		})
		b.Run(fmt.Sprintf("pods=%d/node", n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				index.Set(there)
				index.Set(here)
			}
		})
	}
}
