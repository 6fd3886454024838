package secret

import (
	"context"
	"time"

	corev1 "k8s.io/api/core/v1"

	"lanyard.dev/internal/apiserver/registry"
	"lanyard.dev/internal/bootstraptoken"
)

// Strategy returns how secrets are written.
func Strategy() registry.Strategy[*corev1.Secret] {
	return registry.Strategy[*corev1.Secret]{OnUpdate: keepType, Check: Validate, CheckUpdate: ValidateUpdate, Warn: warnings}
}

// keepType lets an update leave the type out.
func keepType(_ context.Context, obj, old *corev1.Secret) {
	if obj.Type == "" {
		obj.Type = old.Type
	}
}

// warnings tells of a token that never expires that it will not come, and of a bootstrap token that nobody can use why.
func warnings(_ context.Context, obj *corev1.Secret) []string {
	if obj.Type == corev1.SecretTypeBootstrapToken {
		return bootstraptoken.Faults(obj, time.Now())
	}
	if obj.Type != corev1.SecretTypeServiceAccountToken || len(obj.Data[corev1.ServiceAccountTokenKey]) > 0 {
		return nil
	}
	return []string{"type " + string(corev1.SecretTypeServiceAccountToken) + ": no token is filled in, since tokens that never expire are not issued; use 'kubectl create token' instead"}
}
