package objects

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"
)

// source is where objects of one kind come from.
type source[T object] interface {
	// name is the kind's in messages, as kubelets write it.
	name() string
	example() T
	get(ctx context.Context, namespace, name string) (T, error)
	listWatch(namespace string, choose func(*metav1.ListOptions)) *cache.ListWatch
	immutable(T) bool
}

type secrets struct{ client Client }

func (secrets) name() string                    { return "secret" }
func (secrets) example() *corev1.Secret         { return &corev1.Secret{} }
func (secrets) immutable(o *corev1.Secret) bool { return o.Immutable != nil && *o.Immutable }

func (s secrets) get(ctx context.Context, namespace, name string) (*corev1.Secret, error) {
	return s.client.Secrets(namespace).Get(ctx, name, metav1.GetOptions{})
}

func (s secrets) listWatch(namespace string, choose func(*metav1.ListOptions)) *cache.ListWatch {
	return &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			choose(&o)
			return s.client.Secrets(namespace).List(ctx, o)
		},
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			choose(&o)
			return s.client.Secrets(namespace).Watch(ctx, o)
		},
	}
}

type configMaps struct{ client Client }

func (configMaps) name() string                       { return "configmap" }
func (configMaps) example() *corev1.ConfigMap         { return &corev1.ConfigMap{} }
func (configMaps) immutable(o *corev1.ConfigMap) bool { return o.Immutable != nil && *o.Immutable }

func (c configMaps) get(ctx context.Context, namespace, name string) (*corev1.ConfigMap, error) {
	return c.client.ConfigMaps(namespace).Get(ctx, name, metav1.GetOptions{})
}

func (c configMaps) listWatch(namespace string, choose func(*metav1.ListOptions)) *cache.ListWatch {
	return &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			choose(&o)
			return c.client.ConfigMaps(namespace).List(ctx, o)
		},
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			choose(&o)
			return c.client.ConfigMaps(namespace).Watch(ctx, o)
		},
	}
}

type accounts struct{ client Client }

func (accounts) name() string                          { return "serviceaccount" }
func (accounts) example() *corev1.ServiceAccount       { return &corev1.ServiceAccount{} }
func (accounts) immutable(*corev1.ServiceAccount) bool { return false }

func (a accounts) get(ctx context.Context, namespace, name string) (*corev1.ServiceAccount, error) {
	return a.client.ServiceAccounts(namespace).Get(ctx, name, metav1.GetOptions{})
}

func (a accounts) listWatch(namespace string, choose func(*metav1.ListOptions)) *cache.ListWatch {
	return &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			choose(&o)
			return a.client.ServiceAccounts(namespace).List(ctx, o)
		},
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			choose(&o)
			return a.client.ServiceAccounts(namespace).Watch(ctx, o)
		},
	}
}
