package nodeaccess_test

import (
	"fmt"
	"math/rand/v2"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"lanyard.dev/internal/nodeaccess"
	"lanyard.dev/internal/rbac/bootstrap"
)

// use is one way of a pod's to use an object.
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
		graph := nodeaccess.NewPods(&source{})
		graph.Set(p)
		if ok, _ := graph.Belongs("one", u.kind, "shop", "x"); !ok {
			t.Errorf("kind %d as %s is not seen", u.kind, u.how)
		}
		for kind := nodeaccess.Pod; kind <= nodeaccess.ServiceAccount; kind++ {
			if ok, _ := graph.Belongs("one", kind, "shop", "x-not"); ok {
				t.Errorf("%s: a plain value is taken for a reference", u.how)
			}
			if ok, _ := graph.Belongs("one", kind, "shop", "x"); ok && kind != u.kind {
				t.Errorf("%s is also seen as kind %d", u.how, kind)
			}
		}
		graph.Delete(&metav1.PartialObjectMetadata{ObjectMeta: p.ObjectMeta})
		if ok, _ := graph.Belongs("one", u.kind, "shop", "x"); ok {
			t.Errorf("%s outlives its pod", u.how)
		}
	}
}

// told is a pod with what was put into it.
type told struct {
	pod  *corev1.Pod
	uses map[nodeaccess.Reference]bool
}

// naively answers Belongs by going through all pods.
func naively(pods map[string]told, node string, kind nodeaccess.Kind, namespace, name string) bool {
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

func randomPod(r *rand.Rand, all []use) told {
	made := told{
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

// TestGraphEqualsNaiveEvaluation changes pods at random, their nodes included, and asks everything after each change.
func TestGraphEqualsNaiveEvaluation(t *testing.T) {
	t.Parallel()
	for seed := range uint64(20) {
		r := rand.New(rand.NewPCG(seed, 1))
		all, pods, graph := uses(), map[string]told{}, nodeaccess.NewPods(&source{})
		for range 200 {
			change := randomPod(r, all)
			key := change.pod.Namespace + "/" + change.pod.Name
			if r.IntN(3) == 0 {
				graph.Delete(change.pod)
				delete(pods, key)
			} else {
				graph.Set(change.pod)
				pods[key] = change
			}
			compareAll(t, seed, graph, pods)
		}
		for _, p := range pods {
			graph.Delete(p.pod)
		}
		compareAll(t, seed, graph, nil)
		if t.Failed() {
			return
		}
	}
}

func compareAll(t *testing.T, seed uint64, graph *nodeaccess.Pods, pods map[string]told) {
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
					if got, err := graph.Belongs(node, kind, namespace, name); got != want || err != nil {
						t.Errorf("seed %d: node %q, kind %d, %s/%s: %v, %v", seed, node, kind, namespace, name, got, err)
					}
				}
			}
		}
	}
}

func BenchmarkSecretGet(b *testing.B) {
	for _, n := range []int{10, 10_000} {
		graph := nodeaccess.NewPods(&source{})
		for i := range n {
			graph.Set(pod(fmt.Sprint("ns", i%100), fmt.Sprint("p", i), fmt.Sprint("node", i%10),
				secretVolume(fmt.Sprint("s", i)), configMapVolume("kube-root-ca.crt")))
		}
		r := nodeaccess.NewRules(graph, bootstrap.NodeRules())
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

// BenchmarkSet is what the change of one pod costs, its status alone and its node.
func BenchmarkSet(b *testing.B) {
	for _, n := range []int{10, 10_000} {
		graph := nodeaccess.NewPods(&source{})
		for i := range n {
			graph.Set(pod("ns", fmt.Sprint("p", i), "node", secretVolume(fmt.Sprint("s", i)), configMapVolume("kube-root-ca.crt")))
		}
		here, there := pod("ns", "p7", "node", secretVolume("s7")), pod("ns", "p7", "other", secretVolume("s7"))
		b.Run(fmt.Sprintf("pods=%d/status", n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				graph.Set(here)
			}
		})
		b.Run(fmt.Sprintf("pods=%d/node", n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				graph.Set(there)
				graph.Set(here)
			}
		})
	}
}
