package nodeaccess

import (
	"cmp"
	"slices"

	corev1 "k8s.io/api/core/v1"
)

// Kind is a kind of object that a node may read if one of its pods uses the object.
type Kind uint8

// The kinds of objects in the index.
const (
	Pod Kind = iota
	Secret
	ConfigMap
	ServiceAccount
)

// Reference names an object in the namespace of the pod that uses it.
type Reference struct {
	Kind Kind
	Name string
}

// References returns the objects in its namespace that a pod uses, sorted and without repetitions.
func References(pod *corev1.Pod) []Reference {
	var found references
	found.add(ServiceAccount, pod.Spec.ServiceAccountName)
	for i := range pod.Spec.ImagePullSecrets {
		found.add(Secret, pod.Spec.ImagePullSecrets[i].Name)
	}
	for i := range pod.Spec.InitContainers {
		found.environment(pod.Spec.InitContainers[i].Env, pod.Spec.InitContainers[i].EnvFrom)
	}
	for i := range pod.Spec.Containers {
		found.environment(pod.Spec.Containers[i].Env, pod.Spec.Containers[i].EnvFrom)
	}
	for i := range pod.Spec.EphemeralContainers {
		found.environment(pod.Spec.EphemeralContainers[i].Env, pod.Spec.EphemeralContainers[i].EnvFrom)
	}
	for i := range pod.Spec.Volumes {
		found.volume(&pod.Spec.Volumes[i].VolumeSource)
	}
	slices.SortFunc(found, func(a, b Reference) int { return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Name, b.Name)) })
	return slices.Compact(found)
}

type references []Reference

func (r *references) add(kind Kind, name string) {
	if name != "" {
		*r = append(*r, Reference{kind, name})
	}
}

func (r *references) environment(variables []corev1.EnvVar, whole []corev1.EnvFromSource) {
	for i := range variables {
		from := variables[i].ValueFrom
		if from != nil && from.SecretKeyRef != nil {
			r.add(Secret, from.SecretKeyRef.Name)
		}
		if from != nil && from.ConfigMapKeyRef != nil {
			r.add(ConfigMap, from.ConfigMapKeyRef.Name)
		}
	}
	for i := range whole {
		if from := whole[i].SecretRef; from != nil {
			r.add(Secret, from.Name)
		}
		if from := whole[i].ConfigMapRef; from != nil {
			r.add(ConfigMap, from.Name)
		}
	}
}

// volume adds the sources of one volume, and the secret by which a driver accesses it.
func (r *references) volume(v *corev1.VolumeSource) {
	switch {
	case v.Secret != nil:
		r.add(Secret, v.Secret.SecretName)
	case v.ConfigMap != nil:
		r.add(ConfigMap, v.ConfigMap.Name)
	case v.Projected != nil:
		r.projected(v.Projected.Sources)
	case v.AzureFile != nil:
		r.add(Secret, v.AzureFile.SecretName)
	default:
		if ref := driverSecret(v); ref != nil {
			r.add(Secret, ref.Name)
		}
	}
}

func (r *references) projected(sources []corev1.VolumeProjection) {
	for i := range sources {
		if s := sources[i].Secret; s != nil {
			r.add(Secret, s.Name)
		}
		if s := sources[i].ConfigMap; s != nil {
			r.add(ConfigMap, s.Name)
		}
	}
}

func driverSecret(v *corev1.VolumeSource) *corev1.LocalObjectReference {
	switch {
	case v.CSI != nil:
		return v.CSI.NodePublishSecretRef
	case v.CephFS != nil:
		return v.CephFS.SecretRef
	case v.Cinder != nil:
		return v.Cinder.SecretRef
	case v.FlexVolume != nil:
		return v.FlexVolume.SecretRef
	case v.ISCSI != nil:
		return v.ISCSI.SecretRef
	case v.RBD != nil:
		return v.RBD.SecretRef
	case v.ScaleIO != nil:
		return v.ScaleIO.SecretRef
	case v.StorageOS != nil:
		return v.StorageOS.SecretRef
	}
	return nil
}
