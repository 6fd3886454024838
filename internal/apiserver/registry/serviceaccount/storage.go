package serviceaccount

import (
	"context"

	corev1 "k8s.io/api/core/v1"

	"lanyard.dev/internal/apiserver/registry"
)

// Strategy returns how service accounts are written.
func Strategy() registry.Strategy[*corev1.ServiceAccount] {
	return registry.Strategy[*corev1.ServiceAccount]{
		OnCreate: func(_ context.Context, obj *corev1.ServiceAccount) { keepNamesOnly(obj) },
		OnUpdate: func(_ context.Context, obj, _ *corev1.ServiceAccount) { keepNamesOnly(obj) },
		Check:    Validate, CheckUpdate: ValidateUpdate, Warn: warnings,
	}
}

// warnings is Kubernetes' own advice.
func warnings(_ context.Context, obj *corev1.ServiceAccount) []string {
	if _, ok := obj.Annotations[enforceMountable]; !ok {
		return nil
	}
	return []string{"metadata.annotations[" + enforceMountable + "]: deprecated in v1.32+; prefer separate namespaces to isolate access to mounted secrets"}
}

// enforceMountable limits the pods of an account to the secrets that it lists.
const enforceMountable = "kubernetes.io/enforce-mountable-secrets"

// keepNamesOnly cuts references to secrets down to the name: they are always of the account's own namespace.
func keepNamesOnly(obj *corev1.ServiceAccount) {
	for i, ref := range obj.Secrets {
		obj.Secrets[i] = corev1.ObjectReference{Name: ref.Name}
	}
}
