package authz

import (
	"context"
	"slices"

	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"

	"lanyard.dev/internal/apiserver/outage"
	"lanyard.dev/internal/rbac"
)

// Source is a feed that fills an index.
type Source interface {
	// Fresh returns an error if the index may be too far behind the writes of other replicas.
	Fresh() error
}

// Authorizer decides requests with an rbac index.
type Authorizer struct {
	authorizer.AuthorizerFunc
	index   *rbac.Index
	sources []Source
}

var (
	_ authorizer.Authorizer   = &Authorizer{}
	_ authorizer.RuleResolver = &Authorizer{}
)

// New returns an authorizer that uses an index, which the sources fill.
func New(index *rbac.Index, sources ...Source) *Authorizer {
	a := &Authorizer{index: index, sources: sources}
	a.AuthorizerFunc = a.decide
	return a
}

func (a *Authorizer) decide(_ context.Context, request authorizer.Attributes) (authorizer.Decision, string, error) {
	who := request.GetUser()
	if who == nil {
		return authorizer.DecisionNoOpinion, "no user on request", nil
	}
	if slices.Contains(who.GetGroups(), user.SystemPrivilegedGroup) {
		return authorizer.DecisionAllow, "", nil
	}
	if err := a.fresh(); err != nil && !isHealthCheck(request) {
		return authorizer.DecisionNoOpinion, "", err
	}
	decision := a.index.Authorize(rbac.Request{
		User: who.GetName(), Groups: who.GetGroups(), Verb: request.GetVerb(), ResourceRequest: request.IsResourceRequest(),
		APIGroup: request.GetAPIGroup(), Resource: request.GetResource(), Subresource: request.GetSubresource(),
		Name: request.GetName(), Namespace: request.GetNamespace(), Path: request.GetPath(),
	})
	if decision.Allowed {
		return authorizer.DecisionAllow, decision.Reason(), nil
	}
	return authorizer.DecisionNoOpinion, decision.Reason(), nil
}

// fresh returns an outage.Error if the index may be out of date.
func (a *Authorizer) fresh() error {
	for _, s := range a.sources {
		if err := s.Fresh(); err != nil {
			return outage.New(err)
		}
	}
	return nil
}

// isHealthCheck reports whether a request reads the server's health. Such a request is decided by the latest policy that is
// known, even if that may be out of date: the server must report its health while etcd is unavailable, and the response
// contains nothing else.
func isHealthCheck(request authorizer.Attributes) bool {
	return !request.IsResourceRequest() && request.GetVerb() == "get" && outage.IsHealthCheck(request.GetPath())
}

// RulesFor implements authorizer.RuleResolver. It returns no rules if the index may be out of date.
func (a *Authorizer) RulesFor(_ context.Context, who user.Info, namespace string) ([]authorizer.ResourceRuleInfo, []authorizer.NonResourceRuleInfo, bool, error) {
	if err := a.fresh(); err != nil {
		return nil, nil, true, err
	}
	rules := a.index.RulesFor(who.GetName(), who.GetGroups(), namespace)
	resource := make([]authorizer.ResourceRuleInfo, len(rules.Resource))
	for i, r := range rules.Resource {
		resource[i] = &authorizer.DefaultResourceRuleInfo{
			Verbs: r.Verbs, APIGroups: r.APIGroups, Resources: r.Resources, ResourceNames: r.ResourceNames,
		}
	}
	paths := make([]authorizer.NonResourceRuleInfo, len(rules.NonResource))
	for i, r := range rules.NonResource {
		paths[i] = &authorizer.DefaultNonResourceRuleInfo{Verbs: r.Verbs, NonResourceURLs: r.NonResourceURLs}
	}
	return resource, paths, false, nil
}

// Policy fills an index with the objects of one kind. It is a mirror.Listener.
type Policy struct {
	index *rbac.Index
	kind  rbac.Kind
}

// NewPolicy returns the listener for the objects of one kind.
func NewPolicy(index *rbac.Index, kind rbac.Kind) *Policy { return &Policy{index: index, kind: kind} }

// Set implements mirror.Listener. It copies the object, because the index keeps it.
func (p *Policy) Set(obj runtime.Object) {
	switch o := obj.DeepCopyObject().(type) {
	case *rbacv1.Role:
		p.index.SetRole(o)
	case *rbacv1.ClusterRole:
		p.index.SetClusterRole(o)
	case *rbacv1.RoleBinding:
		p.index.SetRoleBinding(o)
	case *rbacv1.ClusterRoleBinding:
		p.index.SetClusterRoleBinding(o)
	}
}

// Delete implements mirror.Listener.
func (p *Policy) Delete(obj runtime.Object) {
	m, err := meta.Accessor(obj)
	if err != nil {
		return
	}
	// A feed delivers changes in order, so the index does not need the version of the deletion.
	p.index.Delete(rbac.Ref{Kind: p.kind, Namespace: m.GetNamespace(), Name: m.GetName()}, "")
}
