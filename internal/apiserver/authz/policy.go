package authz

import (
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime"

	"lanyard.dev/internal/rbac"
)

// Policy tells an index what one resource's feed tells. It is a mirror.Listener.
type Policy struct {
	index *rbac.Index
	kind  rbac.Kind
}

// NewPolicy returns the listener for one kind of policy object.
func NewPolicy(index *rbac.Index, kind rbac.Kind) *Policy { return &Policy{index: index, kind: kind} }

// Set implements mirror.Listener. The index keeps what it is given, so it is given a copy.
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
	// Feeds keep the order of changes, so the index need not remember at which version the object went.
	p.index.Delete(rbac.Ref{Kind: p.kind, Namespace: m.GetNamespace(), Name: m.GetName()}, "")
}
