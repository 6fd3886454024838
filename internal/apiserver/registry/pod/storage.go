package pod

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/registry/generic"

	"lanyard.dev/internal/apiserver/registry"
)

// Storage is the pods resource with its subresources.
type Storage struct {
	Pod      *registry.Store
	Status   *registry.Part
	Binding  *BindingREST
	Eviction *EvictionREST
}

// NewStorage returns the stores of pods and of their subresources.
func NewStorage(typer runtime.ObjectTyper, getter generic.RESTOptionsGetter) (*Storage, error) {
	strategy := newStrategy(typer)
	store, err := registry.NewStore(registry.Kind[*corev1.Pod]{
		Resource: corev1.Resource("pods"), Singular: "pod", ShortNames: []string{"po"}, Categories: []string{"all"},
		New:      func() *corev1.Pod { return &corev1.Pod{} },
		NewList:  func() runtime.Object { return &corev1.PodList{} },
		Strategy: strategy, Delete: gracefulStrategy{strategy},
		Columns: Columns, Row: Row, Fields: Fields, Indexed: []string{"spec.nodeName"},
	}, getter)
	if err != nil {
		return nil, err
	}
	store.ReturnDeletedObject = true
	return &Storage{
		Pod:      store,
		Status:   registry.NewPart(store, statusStrategy(strategy)),
		Binding:  &BindingREST{store: store},
		Eviction: &EvictionREST{store: store},
	}, nil
}
