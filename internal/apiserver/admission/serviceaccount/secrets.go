package serviceaccount

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apiserver/pkg/admission"
)

// enforceMountable on an account limits its pods to the secrets the account lists.
const enforceMountable = "kubernetes.io/enforce-mountable-secrets"

// isMirror says whether the pod only shows one that a node runs from a file of its own.
func isMirror(pod *corev1.Pod) bool {
	_, ok := pod.Annotations[corev1.MirrorPodAnnotationKey]
	return ok
}

// refuseCredentials keeps a mirror pod, which no account vouches for, from anything that carries a credential.
func refuseCredentials(a admission.Attributes, pod *corev1.Pod) error {
	if pod.Spec.ServiceAccountName != "" {
		return admission.NewForbidden(a, fmt.Errorf("a mirror pod may not reference service accounts"))
	}
	if len(secretsOf(pod)) > 0 {
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

// checkMountable holds a pod to its account's lists where the account says so.
func checkMountable(a admission.Attributes, pod *corev1.Pod, account *corev1.ServiceAccount) error {
	if account.Annotations[enforceMountable] != "true" {
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

// secretsOf names every secret that the pod's volumes and environment take values from.
func secretsOf(pod *corev1.Pod) []string {
	var found []string
	for _, v := range pod.Spec.Volumes {
		if v.Secret != nil {
			found = append(found, v.Secret.SecretName)
		}
		if v.Projected == nil {
			continue
		}
		for _, source := range v.Projected.Sources {
			if source.Secret != nil {
				found = append(found, source.Secret.Name)
			}
		}
	}
	for _, containers := range [][]corev1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		for i := range containers {
			found = append(found, environmentSecrets(&containers[i])...)
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
