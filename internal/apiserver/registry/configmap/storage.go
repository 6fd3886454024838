package configmap

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/registry/generic"
	"k8s.io/apiserver/pkg/storage/names"

	"lanyard.dev/internal/apiserver/registry"
)

// NewStorage returns the store of config maps.
func NewStorage(typer runtime.ObjectTyper, getter generic.RESTOptionsGetter) (*registry.Store, error) {
	return registry.NewStore(registry.Kind[*corev1.ConfigMap]{
		Resource: corev1.Resource("configmaps"), Singular: "configmap", ShortNames: []string{"cm"},
		New:     func() *corev1.ConfigMap { return &corev1.ConfigMap{} },
		NewList: func() runtime.Object { return &corev1.ConfigMapList{} },
		Strategy: registry.Strategy[*corev1.ConfigMap]{
			ObjectTyper: typer, NameGenerator: names.SimpleNameGenerator, Namespaced: true,
			Check: Validate, CheckUpdate: ValidateUpdate,
		},
		Columns: Columns, Row: Row, Fields: Fields, Indexed: []string{"metadata.name"},
	}, getter)
}
