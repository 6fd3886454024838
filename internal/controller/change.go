// Package controller holds what the loops below it share. Each package below keeps one promise true.
package controller

import (
	"context"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/registry/rest"
)

// Change returns an update that applies mutate to a copy of what is stored, again if someone else wrote meanwhile.
func Change[T runtime.Object](mutate func(T)) rest.UpdatedObjectInfo {
	return rest.DefaultUpdatedObjectInfo(nil, func(_ context.Context, _, stored runtime.Object) (runtime.Object, error) {
		obj := stored.DeepCopyObject()
		mutate(obj.(T))
		return obj, nil
	})
}
