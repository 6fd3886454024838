package podvalidation

import (
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// MaxWarnings bounds the warnings of one answer. Clients limit the size of headers.
const MaxWarnings = 32

// Warnings returns warnings, worded as in Kubernetes, about values that are accepted and have no useful effect.
func Warnings(pod *corev1.Pod) []string {
	w := &warnings{pod: pod}
	w.annotations(field.NewPath("metadata", "annotations"))
	spec := field.NewPath("spec")
	w.volumes(spec.Child("volumes"))
	w.lists(spec)
	c := checker{pod: pod}
	c.eachContainer(spec, w.container)
	return w.list
}

type warnings struct {
	pod  *corev1.Pod
	list []string
}

func (w *warnings) add(p *field.Path, format string, args ...any) {
	if len(w.list) < MaxWarnings {
		w.list = append(w.list, p.String()+": "+fmt.Sprintf(format, args...))
	}
}

func (w *warnings) annotations(p *field.Path) {
	for _, gone := range []struct{ key, why string }{
		{"scheduler.alpha.kubernetes.io/critical-pod", `non-functional in v1.16+; use the "priorityClassName" field instead`},
		{"security.alpha.kubernetes.io/sysctls", `non-functional in v1.11+; use the "sysctls" field instead`},
		{"security.alpha.kubernetes.io/unsafe-sysctls", `non-functional in v1.11+; use the "sysctls" field instead`},
	} {
		if _, set := w.pod.Annotations[gone.key]; set {
			w.add(p.Key(gone.key), "%s", gone.why)
		}
	}
	sc := w.pod.Spec.SecurityContext
	w.seccompAnnotation(p, corev1.SeccompPodAnnotationKey, sc != nil && sc.SeccompProfile != nil)
}

func (w *warnings) seccompAnnotation(p *field.Path, key string, hasField bool) {
	if _, set := w.pod.Annotations[key]; set && !hasField {
		w.add(p.Key(key), `non-functional in v1.27+; use the "seccompProfile" field instead`)
	}
}

func (w *warnings) volumes(p *field.Path) {
	for i := range w.pod.Spec.Volumes {
		v := &w.pod.Spec.Volumes[i]
		for _, gone := range []struct {
			name string
			set  bool
			why  string
		}{
			{"photonPersistentDisk", v.PhotonPersistentDisk != nil, "deprecated in v1.11, non-functional in v1.16+"},
			{"gitRepo", v.GitRepo != nil, "deprecated in v1.11, and disabled by default in v1.33+"},
			{"scaleIO", v.ScaleIO != nil, "deprecated in v1.16, non-functional in v1.22+"},
			{"flocker", v.Flocker != nil, "deprecated in v1.22, non-functional in v1.25+"},
			{"storageOS", v.StorageOS != nil, "deprecated in v1.22, non-functional in v1.25+"},
			{"quobyte", v.Quobyte != nil, "deprecated in v1.22, non-functional in v1.25+"},
			{"glusterfs", v.Glusterfs != nil, "deprecated in v1.25, non-functional in v1.26+"},
			{"cephfs", v.CephFS != nil, "deprecated in v1.28, non-functional in v1.31+"},
			{"rbd", v.RBD != nil, "deprecated in v1.28, non-functional in v1.31+"},
		} {
			if gone.set {
				w.add(p.Index(i).Child(gone.name), "%s", gone.why)
			}
		}
	}
	w.tokenPaths(p)
}

// tokenPaths warns of files that would replace a projected token.
func (w *warnings) tokenPaths(p *field.Path) {
	tokens := sets.New[string]()
	w.eachProjection(p, func(s *corev1.VolumeProjection, _ *field.Path) {
		if s.ServiceAccountToken != nil {
			tokens.Insert(s.ServiceAccountToken.Path)
		}
	})
	clash := func(path string, p *field.Path) {
		if tokens.Has(path) {
			w.add(p, "has duplicated path with ServiceAccountToken %q", path)
		}
	}
	w.eachProjection(p, func(s *corev1.VolumeProjection, p *field.Path) {
		if s.ConfigMap != nil {
			for i := range s.ConfigMap.Items {
				clash(s.ConfigMap.Items[i].Path, p.Child("configMap").Index(i))
			}
		}
		if s.Secret != nil {
			for i := range s.Secret.Items {
				clash(s.Secret.Items[i].Path, p.Child("secrets").Index(i))
			}
		}
		if s.DownwardAPI != nil {
			for i := range s.DownwardAPI.Items {
				clash(s.DownwardAPI.Items[i].Path, p.Child("downwardAPI").Index(i))
			}
		}
		if s.ClusterTrustBundle != nil {
			clash(s.ClusterTrustBundle.Path, p.Child("ClusterTrustBundle"))
		}
	})
}

// eachProjection calls fn with each source of each projected volume, and the path of all sources of the volume. Kubernetes'
// warnings have the path without an index.
func (w *warnings) eachProjection(p *field.Path, fn func(*corev1.VolumeProjection, *field.Path)) {
	for i := range w.pod.Spec.Volumes {
		if v := w.pod.Spec.Volumes[i].Projected; v != nil {
			for j := range v.Sources {
				fn(&v.Sources[j], p.Index(i).Child("projected", "sources"))
			}
		}
	}
}

func (w *warnings) lists(p *field.Path) {
	ips, secrets := sets.New[string](), sets.New[string]()
	for i, alias := range w.pod.Spec.HostAliases {
		if ips.Has(alias.IP) {
			w.add(p.Child("hostAliases").Index(i).Child("ip"), "duplicate ip %q", alias.IP)
		}
		ips.Insert(alias.IP)
	}
	for i, ref := range w.pod.Spec.ImagePullSecrets {
		path := p.Child("imagePullSecrets").Index(i).Child("name")
		if secrets.Has(ref.Name) {
			w.add(path, "duplicate name %q", ref.Name)
		}
		if ref.Name == "" {
			w.add(path, "invalid empty name %q", ref.Name)
		}
		secrets.Insert(ref.Name)
	}
	for i := range w.pod.Spec.TopologySpreadConstraints {
		if w.pod.Spec.TopologySpreadConstraints[i].LabelSelector == nil {
			w.add(p.Child("topologySpreadConstraints").Index(i).Child("labelSelector"),
				"a null labelSelector results in matching no pod")
		}
	}
	w.fractions(w.pod.Spec.Overhead, p.Child("overhead"))
	if grace := w.pod.Spec.TerminationGracePeriodSeconds; grace != nil && *grace < 0 {
		w.add(p.Child("terminationGracePeriodSeconds"), "must be >= 0; negative values are invalid and will be treated as 1")
	}
}

func (w *warnings) container(ctr *corev1.Container, p *field.Path) {
	sc := ctr.SecurityContext
	w.seccompAnnotation(field.NewPath("metadata", "annotations"),
		corev1.SeccompContainerAnnotationKeyPrefix+ctr.Name, sc != nil && sc.SeccompProfile != nil)
	w.fractions(ctr.Resources.Limits, p.Child("resources", "limits"))
	w.fractions(ctr.Resources.Requests, p.Child("resources", "requests"))
	w.hiddenEnv(ctr.Env, p.Child("env"))
	for i := range ctr.Ports {
		if port := &ctr.Ports[i]; port.HostIP != "" && port.HostPort == 0 {
			w.add(p.Child("ports").Index(i), "hostIP set without hostPort: %+v", *port)
		}
	}
}

func (w *warnings) fractions(list corev1.ResourceList, p *field.Path) {
	for _, name := range []corev1.ResourceName{corev1.ResourceMemory, corev1.ResourceEphemeralStorage} {
		if q, ok := list[name]; ok && q.MilliValue()%1000 != 0 {
			w.add(p.Key(string(name)), "fractional byte value %q is invalid, must be an integer", q.String())
		}
	}
}

// hiddenEnv warns of a variable that is set again, unless the new value contains the old one.
func (w *warnings) hiddenEnv(vars []corev1.EnvVar, p *field.Path) {
	seen := sets.New[string]()
	for i := range vars {
		v := &vars[i]
		former := "$(" + v.Name + ")"
		extends := v.ValueFrom == nil && v.Value != former && strings.Contains(v.Value, former)
		if seen.Has(v.Name) && !extends {
			w.add(p.Index(i), "hides previous definition of %q, which may be dropped when using apply", v.Name)
		}
		seen.Insert(v.Name)
	}
}
