package apiserver

import (
	"errors"
	"fmt"

	certificatesv1 "k8s.io/api/certificates/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/registry/rest"
	genericserver "k8s.io/apiserver/pkg/server"
	"k8s.io/utils/clock"

	"lanyard.dev/internal/apiserver/api"
	"lanyard.dev/internal/apiserver/ephemeral"
	"lanyard.dev/internal/apiserver/registry"
	"lanyard.dev/internal/apiserver/registry/namespace"
	"lanyard.dev/internal/apiserver/registry/pod"
	"lanyard.dev/internal/apiserver/registry/serviceaccount"
)

// certificateRequests is a resource for which k8s.io/api has no constructor of the name.
var certificateRequests = schema.GroupResource{Group: certificatesv1.GroupName, Resource: "certificatesigningrequests"}

// stores are the stored resources of the tables, and those among them that the server itself uses.
type stores struct {
	*api.Stores

	namespaces struct {
		Namespace *namespace.REST
		Status    *registry.Part
		Finalize  namespace.Finalize
	}
	pods struct {
		Pod     *registry.Store
		Status  *registry.Part
		Binding *pod.BindingREST
	}
	requests struct {
		Request          *registry.Store
		Approval, Status *registry.Part
	}
	nodeStatus *registry.Part

	serviceAccounts, secrets, configMaps, nodes, events, leases *registry.Store

	roles, roleBindings, clusterRoles, clusterRoleBindings *registry.Store
}

// newStores makes every store.
func newStores(tables api.Tables, in api.Inputs) (*stores, error) {
	made, err := tables.NewStores(in)
	if err != nil {
		return nil, err
	}
	s := &stores{Stores: made}
	return s, errors.Join(
		find(made, corev1.Resource("namespaces"), &s.namespaces.Namespace),
		find(made, corev1.Resource("namespaces/status"), &s.namespaces.Status),
		find(made, corev1.Resource("namespaces/finalize"), &s.namespaces.Finalize),
		find(made, corev1.Resource("pods"), &s.pods.Pod),
		find(made, corev1.Resource("pods/status"), &s.pods.Status),
		find(made, corev1.Resource("pods/binding"), &s.pods.Binding),
		find(made, corev1.Resource("nodes"), &s.nodes),
		find(made, corev1.Resource("nodes/status"), &s.nodeStatus),
		find(made, corev1.Resource("serviceaccounts"), &s.serviceAccounts),
		find(made, corev1.Resource("secrets"), &s.secrets),
		find(made, corev1.Resource("configmaps"), &s.configMaps),
		find(made, corev1.Resource("events"), &s.events),
		find(made, coordinationv1.Resource("leases"), &s.leases),
		find(made, certificateRequests, &s.requests.Request),
		find(made, part(certificateRequests, "approval"), &s.requests.Approval),
		find(made, part(certificateRequests, "status"), &s.requests.Status),
		find(made, rbacv1.Resource("roles"), &s.roles),
		find(made, rbacv1.Resource("rolebindings"), &s.roleBindings),
		find(made, rbacv1.Resource("clusterroles"), &s.clusterRoles),
		find(made, rbacv1.Resource("clusterrolebindings"), &s.clusterRoleBindings),
	)
}

func find[T rest.Storage](made *api.Stores, resource schema.GroupResource, into *T) (err error) {
	*into, err = api.Get[T](made, resource)
	return err
}

func part(of schema.GroupResource, name string) schema.GroupResource {
	return schema.GroupResource{Group: of.Group, Resource: of.Resource + "/" + name}
}

// storeInputs are what the stores are made from.
func (a *assembly) storeInputs(furnish namespace.Furnish) api.Inputs {
	return api.Inputs{Typer: a.scheme, Getter: a.mirror, Furnish: furnish, Signed: a.signs, Clock: clock.RealClock{}}
}

// backends are what the resources are made from that need more than a store.
func (a *assembly) backends() api.Backends {
	o := a.options.ServiceAccounts
	return api.Backends{
		Nodes: a.nodes, Authorizer: a.authorizer, Rules: a.authorizer, Tokens: a.tokens, Audiences: o.audiences(),
		Issuing: serviceaccount.TokenConfig{
			Issuer: a.metrics.CountIssued(a.issuer), Anchors: a.issuing, Audiences: o.audiences(), Lifetimes: a.lifetimes(),
		},
	}
}

// install serves every group. The kinds that are only answered are installed like the others, for discovery and
// OpenAPI, and then answered by a shorter way.
func (a *assembly) install() error {
	served := a.stores.Serve(a.backends())
	if err := a.addEphemeral(served.Answered); err != nil {
		return err
	}
	for _, group := range a.tables {
		info := a.groupInfo(group, served.Storage)
		if len(info.VersionedResourcesStorageMap) == 0 {
			continue
		}
		install := a.server.InstallAPIGroup
		if group.Name == corev1.GroupName {
			install = func(core *genericserver.APIGroupInfo) error { return a.server.InstallLegacyAPIGroup("/api", core) }
		}
		if err := install(info); err != nil {
			return fmt.Errorf("serve group %q: %w", group.Name, err)
		}
	}
	return nil
}

// addEphemeral has the ephemeral handler answer these kinds.
func (a *assembly) addEphemeral(kinds []api.Answered) error {
	for _, kind := range kinds {
		where := ephemeral.Resource{GroupVersionResource: kind.GroupVersionResource, Subresource: kind.Part}
		if !a.ephemeral.Add(where, kind.Kind, kind.Storage) {
			return fmt.Errorf("serve %s %s: it cannot be created", kind.Resource, kind.Part)
		}
	}
	return nil
}

// groupInfo describes a group to the library: all its versions at once, since the library sets up the path of a group only once.
func (a *assembly) groupInfo(group api.Group, served map[schema.GroupVersion]map[string]rest.Storage) *genericserver.APIGroupInfo {
	info := genericserver.NewDefaultAPIGroupInfo(group.Name, a.scheme, runtime.NewParameterCodec(a.scheme), a.codecs)
	for _, version := range group.Versions {
		if resources := served[group.GroupVersion(version)]; len(resources) > 0 {
			info.VersionedResourcesStorageMap[version.Name] = resources
		}
	}
	return &info
}
