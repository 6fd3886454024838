package pod

import "lanyard.dev/internal/apiserver/registry"

// NewStatus returns pods/status on the store of pods.
func NewStatus(store *registry.Store) *registry.Part {
	return registry.NewPart(store, statusStrategy(registry.StrategyOf[object](store)))
}

// NewBinding returns pods/binding on the store of pods.
func NewBinding(store *registry.Store) *BindingREST { return &BindingREST{store: store} }

// NewEviction returns pods/eviction on the store of pods.
func NewEviction(store *registry.Store) *EvictionREST { return &EvictionREST{store: store} }
