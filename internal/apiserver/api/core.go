package api

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/registry/rest"

	"lanyard.dev/internal/apiserver/registry"
	"lanyard.dev/internal/apiserver/registry/configmap"
	"lanyard.dev/internal/apiserver/registry/event"
	"lanyard.dev/internal/apiserver/registry/namespace"
	"lanyard.dev/internal/apiserver/registry/node"
	"lanyard.dev/internal/apiserver/registry/pod"
	"lanyard.dev/internal/apiserver/registry/podsession"
	"lanyard.dev/internal/apiserver/registry/secret"
	"lanyard.dev/internal/apiserver/registry/serviceaccount"
	"lanyard.dev/internal/podoptions"
	"lanyard.dev/internal/podvalidation"
)

func core() Group {
	return Group{Name: corev1.GroupName, Versions: []Version{{
		Name: "v1",
		// A Binding is posted to a subresource of a pod.
		Types:     []runtime.Object{&corev1.Binding{}},
		Resources: []Resource{namespaces(), serviceAccounts(), secrets(), configMaps(), pods(), nodes(), coreEvents()},
	}}}
}

func namespaces() Resource {
	return Resource{
		Name: "namespaces", Singular: "namespace", ShortNames: []string{"ns"}, Mirrored: true,
		Kind: &corev1.Namespace{}, List: &corev1.NamespaceList{}, Columns: namespace.Columns,
		Stored: Objects[*corev1.Namespace]{
			Strategy: namespace.Strategy(), Default: namespace.SetDefaults, Row: namespace.Row, Fields: namespace.Fields, Adjust: namespace.KeepUntilEmpty,
		},
		Serve: func(s *registry.Store, b Backends) rest.Storage { return namespace.NewREST(s, b.AddDefaults) },
		Subresources: []Subresource{
			{Name: "status", Store: storeOnly(namespace.NewStatus)},
			{Name: "finalize", Store: storeOnly(namespace.NewFinalize)},
		},
	}
}

func serviceAccounts() Resource {
	return Resource{
		Name: "serviceaccounts", Singular: "serviceaccount", ShortNames: []string{"sa"}, Namespaced: true, Mirrored: true,
		Kind: &corev1.ServiceAccount{}, List: &corev1.ServiceAccountList{}, Columns: serviceaccount.Columns,
		Stored: Objects[*corev1.ServiceAccount]{
			Strategy: serviceaccount.Strategy(), Row: serviceaccount.Row, Adjust: returnDeleted,
		},
		Subresources: []Subresource{
			{Name: "token", Credentials: true, Ephemeral: func(b Backends) EphemeralSubresource { return serviceaccount.NewTokenREST(b.Issuing) }},
		},
	}
}

func secrets() Resource {
	return Resource{
		Name: "secrets", Singular: "secret", Namespaced: true, Mirrored: true, Credentials: true,
		Kind: &corev1.Secret{}, List: &corev1.SecretList{}, Columns: secret.Columns,
		Stored: Objects[*corev1.Secret]{
			Strategy: secret.Strategy(), Default: secret.SetDefaults, Row: secret.Row, Fields: secret.Fields, Indexed: []string{"metadata.name"},
		},
	}
}

func configMaps() Resource {
	return Resource{
		Name: "configmaps", Singular: "configmap", ShortNames: []string{"cm"}, Namespaced: true, Mirrored: true,
		Kind: &corev1.ConfigMap{}, List: &corev1.ConfigMapList{}, Columns: configmap.Columns,
		Stored: Objects[*corev1.ConfigMap]{
			Strategy: registry.Strategy[*corev1.ConfigMap]{Check: configmap.Validate, CheckUpdate: configmap.ValidateUpdate},
			Row:      configmap.Row, Indexed: []string{"metadata.name"},
		},
	}
}

func pods() Resource {
	return Resource{
		Name: "pods", Singular: "pod", ShortNames: []string{"po"}, Categories: []string{"all"}, Namespaced: true, Mirrored: true,
		Kind: &corev1.Pod{}, List: &corev1.PodList{}, Columns: pod.Columns,
		Stored: Objects[*corev1.Pod]{
			Strategy: pod.Strategy(), Delete: pod.GracefulDelete, Default: podvalidation.SetDefaults,
			Row: pod.Row, Fields: pod.Fields, Indexed: []string{"spec.nodeName"}, Adjust: returnDeleted,
			// Kubernetes too accepts this selector, and no pod matches it.
			Unselected: []string{"status.podIPs"},
		},
		Subresources: []Subresource{
			{Name: "status", Store: storeOnly(pod.NewStatus)},
			{Name: "binding", Store: storeOnly(pod.NewBinding), Unstored: true},
			{Name: "eviction", Store: storeOnly(pod.NewEviction), Unstored: true},
			{Name: "log", Options: parameters(podoptions.Log), Connect: func(s *registry.Store, b Backends) rest.Storage {
				return podsession.NewLogREST(s, b.Nodes)
			}},
			{Name: "exec", Options: parameters(podoptions.Exec), Connect: func(s *registry.Store, b Backends) rest.Storage {
				return podsession.NewExecREST(s, b.Nodes, b.Authorizer)
			}},
			{Name: "attach", Options: parameters(podoptions.Attach), Connect: func(s *registry.Store, b Backends) rest.Storage {
				return podsession.NewAttachREST(s, b.Nodes, b.Authorizer)
			}},
			{Name: "portforward", Options: parameters(podoptions.PortForward), Connect: func(s *registry.Store, b Backends) rest.Storage {
				return podsession.NewPortForwardREST(s, b.Nodes, b.Authorizer)
			}},
		},
	}
}

func nodes() Resource {
	return Resource{
		Name: "nodes", Singular: "node", ShortNames: []string{"no"}, Mirrored: true, Prefix: "minions",
		Kind: &corev1.Node{}, List: &corev1.NodeList{}, Columns: node.Columns,
		Stored:       Objects[*corev1.Node]{Strategy: node.Strategy(), Default: node.SetDefaults, Row: node.Row, Fields: node.Fields},
		Subresources: []Subresource{{Name: "status", Store: storeOnly(node.NewStatus)}},
	}
}

func coreEvents() Resource {
	return Resource{
		Name: "events", Singular: "event", ShortNames: []string{"ev"}, Namespaced: true,
		Kind: &corev1.Event{}, List: &corev1.EventList{}, Columns: event.Columns,
		Stored: Objects[*corev1.Event]{
			Strategy: registry.Strategy[*corev1.Event]{CreateOnUpdate: true, Check: event.Validate, CheckUpdate: event.ValidateUpdate},
			TTL:      event.TTL, Row: event.Row, Fields: event.Fields,
		},
	}
}

// storeOnly returns the constructor of a subresource that needs only the store of its resource.
func storeOnly[T rest.Storage](made func(*registry.Store) T) func(*registry.Store, Inputs) rest.Storage {
	return func(s *registry.Store, _ Inputs) rest.Storage { return made(s) }
}

// returnDeleted makes the answer to a deletion the object, not a Status as for other resources.
func returnDeleted(s *registry.Store) { s.ReturnDeletedObject = true }
