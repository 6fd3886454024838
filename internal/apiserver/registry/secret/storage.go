package secret

import (
	"context"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/registry/generic"
	"k8s.io/apiserver/pkg/storage/names"

	"lanyard.dev/internal/apiserver/registry"
	"lanyard.dev/internal/bootstraptoken"
)

// NewStorage returns the store of secrets.
func NewStorage(typer runtime.ObjectTyper, getter generic.RESTOptionsGetter) (*registry.Store, error) {
	return registry.NewStore(registry.Kind[*corev1.Secret]{
		Resource: corev1.Resource("secrets"), Singular: "secret",
		New:     func() *corev1.Secret { return &corev1.Secret{} },
		NewList: func() runtime.Object { return &corev1.SecretList{} },
		Strategy: registry.Strategy[*corev1.Secret]{
			ObjectTyper: typer, NameGenerator: names.SimpleNameGenerator, Namespaced: true,
			OnUpdate: keepType, Check: Validate, CheckUpdate: ValidateUpdate, Warn: warnings,
		},
		Columns: Columns, Row: Row, Fields: Fields, Indexed: []string{"metadata.name"},
	}, getter)
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
