package apiserver

import (
	"fmt"

	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	certificatesv1 "k8s.io/api/certificates/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/registry/generic"
	"k8s.io/apiserver/pkg/registry/rest"
	"k8s.io/utils/clock"

	"lanyard.dev/internal/apiserver/ephemeral"
	"lanyard.dev/internal/apiserver/registry"
	"lanyard.dev/internal/apiserver/registry/accessreview"
	"lanyard.dev/internal/apiserver/registry/certificatesigningrequest"
	"lanyard.dev/internal/apiserver/registry/clusterrole"
	"lanyard.dev/internal/apiserver/registry/clusterrolebinding"
	"lanyard.dev/internal/apiserver/registry/configmap"
	"lanyard.dev/internal/apiserver/registry/event"
	"lanyard.dev/internal/apiserver/registry/lease"
	"lanyard.dev/internal/apiserver/registry/namespace"
	"lanyard.dev/internal/apiserver/registry/node"
	"lanyard.dev/internal/apiserver/registry/pod"
	"lanyard.dev/internal/apiserver/registry/podsession"
	"lanyard.dev/internal/apiserver/registry/role"
	"lanyard.dev/internal/apiserver/registry/rolebinding"
	"lanyard.dev/internal/apiserver/registry/rulesreview"
	"lanyard.dev/internal/apiserver/registry/secret"
	"lanyard.dev/internal/apiserver/registry/selfsubjectreview"
	"lanyard.dev/internal/apiserver/registry/serviceaccount"
	"lanyard.dev/internal/apiserver/registry/tokenreview"
)

// stores are the stored resources.
type stores struct {
	namespaces *namespace.Storage
	pods       *pod.Storage
	nodeStatus *registry.Part
	requests   *certificatesigningrequest.Storage

	serviceAccounts, secrets, configMaps, nodes, events, eventsV1, leases *registry.Store
	roles, roleBindings, clusterRoles, clusterRoleBindings                *registry.Store
}

// newStores makes every store. furnish is called for each new namespace; signed tells whose certificates are signed here.
func newStores(typer runtime.ObjectTyper, getter generic.RESTOptionsGetter, furnish namespace.Furnish, signed certificatesigningrequest.Signed) (*stores, error) {
	s := &stores{}
	var err error
	if s.namespaces, err = namespace.NewStorage(typer, getter, furnish); err != nil {
		return nil, err
	}
	if s.pods, err = pod.NewStorage(typer, getter); err != nil {
		return nil, err
	}
	if s.nodes, s.nodeStatus, err = node.NewStorage(typer, getter); err != nil {
		return nil, err
	}
	if s.events, s.eventsV1, err = event.NewStorage(typer, getter); err != nil {
		return nil, err
	}
	if s.requests, err = certificatesigningrequest.NewStorage(typer, getter, signed, clock.RealClock{}); err != nil {
		return nil, err
	}
	simple := []struct {
		store **registry.Store
		make  func(runtime.ObjectTyper, generic.RESTOptionsGetter) (*registry.Store, error)
	}{
		{&s.serviceAccounts, serviceaccount.NewStorage}, {&s.secrets, secret.NewStorage}, {&s.configMaps, configmap.NewStorage},
		{&s.leases, lease.NewStorage}, {&s.roles, role.NewStorage}, {&s.roleBindings, rolebinding.NewStorage},
		{&s.clusterRoles, clusterrole.NewStorage}, {&s.clusterRoleBindings, clusterrolebinding.NewStorage},
	}
	for _, kind := range simple {
		if *kind.store, err = kind.make(typer, getter); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// namespaced are the stores that a terminating namespace is emptied of.
func (s *stores) namespaced() map[schema.GroupResource]*registry.Store {
	all := map[schema.GroupResource]*registry.Store{}
	for _, store := range []*registry.Store{
		s.pods.Pod, s.serviceAccounts, s.secrets, s.configMaps, s.events, s.leases, s.roles, s.roleBindings,
	} {
		all[store.DefaultQualifiedResource] = store
	}
	return all
}

// resources lays the stores and reviews out as the API serves them, by group and version.
func (a *assembly) resources() map[schema.GroupVersion]map[string]rest.Storage {
	s := a.stores
	return map[schema.GroupVersion]map[string]rest.Storage{
		corev1.SchemeGroupVersion: {
			"namespaces": s.namespaces.Namespace, "namespaces/status": s.namespaces.Status, "namespaces/finalize": s.namespaces.Finalize,
			"serviceaccounts": s.serviceAccounts, "serviceaccounts/token": a.tokenREST(),
			"secrets": s.secrets, "configmaps": s.configMaps, "events": s.events,
			"pods": s.pods.Pod, "pods/status": s.pods.Status, "pods/binding": s.pods.Binding, "pods/eviction": s.pods.Eviction,
			"pods/log": podsession.NewLogREST(s.pods.Pod, a.nodes), "pods/exec": podsession.NewExecREST(s.pods.Pod, a.nodes, a.authorizer),
			"pods/attach":      podsession.NewAttachREST(s.pods.Pod, a.nodes, a.authorizer),
			"pods/portforward": podsession.NewPortForwardREST(s.pods.Pod, a.nodes, a.authorizer),
			"nodes":            s.nodes, "nodes/status": s.nodeStatus,
		},
		authenticationv1.SchemeGroupVersion: {
			"tokenreviews":       tokenreview.NewREST(a.tokens, a.options.ServiceAccounts.audiences()),
			"selfsubjectreviews": &selfsubjectreview.REST{},
		},
		authorizationv1.SchemeGroupVersion: {
			"subjectaccessreviews": accessreview.NewSubject(a.authorizer), "selfsubjectaccessreviews": accessreview.NewSelf(a.authorizer),
			"localsubjectaccessreviews": accessreview.NewLocal(a.authorizer), "selfsubjectrulesreviews": rulesreview.NewREST(a.authorizer),
		},
		certificatesv1.SchemeGroupVersion: {
			"certificatesigningrequests":          s.requests.Request,
			"certificatesigningrequests/approval": s.requests.Approval, "certificatesigningrequests/status": s.requests.Status,
		},
		coordinationv1.SchemeGroupVersion: {"leases": s.leases},
		eventsv1.SchemeGroupVersion:       {"events": s.eventsV1},
		rbacv1.SchemeGroupVersion: {
			"roles": s.roles, "rolebindings": s.roleBindings,
			"clusterroles": s.clusterRoles, "clusterrolebindings": s.clusterRoleBindings,
		},
	}
}

func (a *assembly) tokenREST() *serviceaccount.TokenREST {
	o := a.options.ServiceAccounts
	return serviceaccount.NewTokenREST(serviceaccount.TokenConfig{
		Issuer: a.metrics.CountIssued(a.issuer), Anchors: a.issuing, Audiences: o.audiences(), Lifetimes: a.lifetimes(),
	})
}

// groups are the API groups in the order discovery lists them.
var groups = []schema.GroupVersion{
	authenticationv1.SchemeGroupVersion, authorizationv1.SchemeGroupVersion, certificatesv1.SchemeGroupVersion, coordinationv1.SchemeGroupVersion,
	eventsv1.SchemeGroupVersion, rbacv1.SchemeGroupVersion,
}

// answered are the kinds that are answered and never stored, by where they are posted to.
var answered = map[ephemeral.Resource]schema.GroupVersionKind{
	{GroupVersionResource: corev1.SchemeGroupVersion.WithResource("serviceaccounts"), Subresource: "token"}: authenticationv1.SchemeGroupVersion.WithKind("TokenRequest"),

	{GroupVersionResource: authenticationv1.SchemeGroupVersion.WithResource("tokenreviews")}:             authenticationv1.SchemeGroupVersion.WithKind("TokenReview"),
	{GroupVersionResource: authenticationv1.SchemeGroupVersion.WithResource("selfsubjectreviews")}:       authenticationv1.SchemeGroupVersion.WithKind("SelfSubjectReview"),
	{GroupVersionResource: authorizationv1.SchemeGroupVersion.WithResource("subjectaccessreviews")}:      authorizationv1.SchemeGroupVersion.WithKind("SubjectAccessReview"),
	{GroupVersionResource: authorizationv1.SchemeGroupVersion.WithResource("selfsubjectaccessreviews")}:  authorizationv1.SchemeGroupVersion.WithKind("SelfSubjectAccessReview"),
	{GroupVersionResource: authorizationv1.SchemeGroupVersion.WithResource("localsubjectaccessreviews")}: authorizationv1.SchemeGroupVersion.WithKind("LocalSubjectAccessReview"),
	{GroupVersionResource: authorizationv1.SchemeGroupVersion.WithResource("selfsubjectrulesreviews")}:   authorizationv1.SchemeGroupVersion.WithKind("SelfSubjectRulesReview"),
}

// install serves every group. The kinds that are only answered are installed like the others, for discovery and
// OpenAPI, and then answered by a shorter way.
func (a *assembly) install() error {
	all := a.resources()
	for resource, kind := range answered {
		path := resource.Resource
		if resource.Subresource != "" {
			path += "/" + resource.Subresource
		}
		if !a.ephemeral.Add(resource, kind, all[resource.GroupVersion()][path]) {
			return fmt.Errorf("serve %s: it cannot be created", path)
		}
	}
	core := a.groupInfo(corev1.SchemeGroupVersion, all)
	if err := a.server.InstallLegacyAPIGroup("/api", core); err != nil {
		return fmt.Errorf("serve the core group: %w", err)
	}
	for _, gv := range groups {
		if err := a.server.InstallAPIGroup(a.groupInfo(gv, all)); err != nil {
			return fmt.Errorf("serve %s: %w", gv, err)
		}
	}
	return nil
}
