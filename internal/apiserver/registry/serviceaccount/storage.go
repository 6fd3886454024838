package serviceaccount

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/registry/generic"
	"k8s.io/apiserver/pkg/storage/names"

	"lanyard.dev/internal/apiserver/registry"
)

// NewStorage returns the store of service accounts.
func NewStorage(typer runtime.ObjectTyper, getter generic.RESTOptionsGetter) (*registry.Store, error) {
	store, err := registry.NewStore(registry.Kind[*corev1.ServiceAccount]{
		Resource: corev1.Resource("serviceaccounts"), Singular: "serviceaccount", ShortNames: []string{"sa"},
		New:     func() *corev1.ServiceAccount { return &corev1.ServiceAccount{} },
		NewList: func() runtime.Object { return &corev1.ServiceAccountList{} },
		Strategy: registry.Strategy[*corev1.ServiceAccount]{
			ObjectTyper: typer, NameGenerator: names.SimpleNameGenerator, Namespaced: true,
			OnCreate: func(_ context.Context, obj *corev1.ServiceAccount) { keepNamesOnly(obj) },
			OnUpdate: func(_ context.Context, obj, _ *corev1.ServiceAccount) { keepNamesOnly(obj) },
			Check:    Validate, CheckUpdate: ValidateUpdate, Warn: warnings,
		},
		Columns: Columns, Row: Row, Fields: Fields,
	}, getter)
	if err != nil {
		return nil, err
	}
	store.ReturnDeletedObject = true
	return store, nil
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
