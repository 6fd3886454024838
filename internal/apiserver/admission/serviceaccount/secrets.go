package serviceaccount

import (
	"fmt"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apiserver/pkg/admission"
)

// enforceMountable is the annotation of an account whose pods may only use the secrets that the account lists.
const enforceMountable = "kubernetes.io/enforce-mountable-secrets"

// isMirror reports whether the pod is a mirror pod, which shows a pod that a node runs from a file.
func isMirror(pod *corev1.Pod) bool {
	_, ok := pod.Annotations[corev1.MirrorPodAnnotationKey]
	return ok
}

// refuseCredentials refuses a mirror pod with a credential. A mirror pod has no account.
func refuseCredentials(a admission.Attributes, pod *corev1.Pod) error {
	if pod.Spec.ServiceAccountName != "" {
		return admission.NewForbidden(a, fmt.Errorf("a mirror pod may not reference service accounts"))
	}
	if len(secretsOf(pod)) > 0 || len(pod.Spec.ImagePullSecrets) > 0 {
		return admission.NewForbidden(a, fmt.Errorf("a mirror pod may not reference secrets"))
	}
	for _, v := range pod.Spec.Volumes {
		if v.Projected == nil {
			continue
		}
		for _, source := range v.Projected.Sources {
			if source.ServiceAccountToken != nil {
				return admission.NewForbidden(a, fmt.Errorf("a mirror pod may not use ServiceAccountToken volume projections"))
			}
		}
	}
	return nil
}

// checkMountable refuses secrets that the account does not list, if the account has the annotation enforceMountable.
func checkMountable(a admission.Attributes, pod *corev1.Pod, account *corev1.ServiceAccount) error {
	// As in Kubernetes, every spelling of true is accepted, and a value that is no boolean is false.
	if enforced, _ := strconv.ParseBool(account.Annotations[enforceMountable]); !enforced {
		return nil
	}
	mountable := sets.New[string]()
	for _, s := range account.Secrets {
		mountable.Insert(s.Name)
	}
	for _, name := range secretsOf(pod) {
		if !mountable.Has(name) {
			return admission.NewForbidden(a, fmt.Errorf("secret %q is not in the secrets list of service account %q, which enforces mountable secrets", name, account.Name))
		}
	}
	pullable := sets.New[string]()
	for _, s := range account.ImagePullSecrets {
		pullable.Insert(s.Name)
	}
	for i, s := range pod.Spec.ImagePullSecrets {
		if !pullable.Has(s.Name) {
			return admission.NewForbidden(a, fmt.Errorf("imagePullSecrets[%d].name=%q is not in the imagePullSecrets list of service account %q, which enforces mountable secrets", i, s.Name, account.Name))
		}
	}
	return nil
}

// secretsOf returns the names of the secrets in the volumes and the environment of the pod.
func secretsOf(pod *corev1.Pod) []string {
	var found []string
	for i := range pod.Spec.Volumes {
		found = append(found, volumeSecrets(&pod.Spec.Volumes[i].VolumeSource)...)
	}
	for _, containers := range [][]corev1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		for i := range containers {
			found = append(found, environmentSecrets(&containers[i])...)
		}
	}
	return found
}

// volumeSecrets returns the names of the secrets of a volume. It covers every type of volume that refers to one.
func volumeSecrets(v *corev1.VolumeSource) []string {
	if v.Projected != nil {
		return projectedSecrets(v.Projected)
	}
	var ref *corev1.LocalObjectReference
	switch {
	case v.Secret != nil:
		return []string{v.Secret.SecretName}
	case v.AzureFile != nil:
		return []string{v.AzureFile.SecretName}
	case v.CephFS != nil:
		ref = v.CephFS.SecretRef
	case v.Cinder != nil:
		ref = v.Cinder.SecretRef
	case v.CSI != nil:
		ref = v.CSI.NodePublishSecretRef
	case v.FlexVolume != nil:
		ref = v.FlexVolume.SecretRef
	case v.ISCSI != nil:
		ref = v.ISCSI.SecretRef
	case v.RBD != nil:
		ref = v.RBD.SecretRef
	case v.ScaleIO != nil:
		ref = v.ScaleIO.SecretRef
	case v.StorageOS != nil:
		ref = v.StorageOS.SecretRef
	}
	if ref == nil {
		return nil
	}
	return []string{ref.Name}
}

func projectedSecrets(v *corev1.ProjectedVolumeSource) []string {
	var found []string
	for _, source := range v.Sources {
		if source.Secret != nil {
			found = append(found, source.Secret.Name)
		}
	}
	return found
}

func environmentSecrets(c *corev1.Container) []string {
	var found []string
	for _, from := range c.EnvFrom {
		if from.SecretRef != nil {
			found = append(found, from.SecretRef.Name)
		}
	}
	for _, env := range c.Env {
		if env.ValueFrom != nil && env.ValueFrom.SecretKeyRef != nil {
			found = append(found, env.ValueFrom.SecretKeyRef.Name)
		}
	}
	return found
}
