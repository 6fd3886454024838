package event

import (
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/registry/generic"
	"k8s.io/apiserver/pkg/storage/names"

	"lanyard.dev/internal/apiserver/registry"
)

// TTL is how long an event is kept.
const TTL = time.Hour

// NewStorage returns the same stored events twice: as core serves them, and as events.k8s.io does, which asks more of
// a new event.
func NewStorage(typer runtime.ObjectTyper, getter generic.RESTOptionsGetter) (core, events *registry.Store, err error) {
	strategy := registry.Strategy[*corev1.Event]{
		ObjectTyper: typer, NameGenerator: names.SimpleNameGenerator, Namespaced: true, CreateOnUpdate: true,
		Check: Validate, CheckUpdate: ValidateUpdate,
	}
	core, err = registry.NewStore(registry.Kind[*corev1.Event]{
		Resource: corev1.Resource("events"), Singular: "event", ShortNames: []string{"ev"},
		New:      func() *corev1.Event { return &corev1.Event{} },
		NewList:  func() runtime.Object { return &corev1.EventList{} },
		Strategy: strategy,
		TTL:      func(*corev1.Event) uint64 { return uint64(TTL.Seconds()) },
		Columns:  Columns, Row: Row, Fields: Fields,
	}, getter)
	if err != nil {
		return nil, nil, err
	}
	strategy.Check, strategy.CheckUpdate = ValidateStrict, ValidateUpdateStrict
	return core, registry.WithStrategy(core, strategy), nil
}
