package nodeaccess

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
)

const (
	// Group is the group of every node.
	Group = "system:nodes"

	userPrefix = "system:node:"
)

// User returns the user name of a node.
func User(node string) string { return userPrefix + node }

// IsUser reports whether a user name is the user name of a node. It does not consider groups.
func IsUser(name string) bool { return strings.HasPrefix(name, userPrefix) }

// Identify returns the node that a user is; false if the user is no node. The name may be empty: such a node may do
// nothing.
func Identify(user string, groups []string) (node string, ok bool) {
	node, ok = strings.CutPrefix(user, userPrefix)
	if !ok || !slices.Contains(groups, Group) {
		return "", false
	}
	return node, true
}

// Request is a request of a node. Name is empty if the request names no object. For a list or watch it is the name that
// the field selector selects, if it selects one.
type Request struct {
	Verb                            string
	ResourceRequest                 bool
	APIGroup, Resource, Subresource string
	Namespace, Name                 string
	// SelectedNode is the value of spec.nodeName that the field selector of a list or watch requires.
	SelectedNode string
}

// Decision is the answer to a Request. The zero Decision denies. Reason is why, in Kubernetes' words; it may be empty.
type Decision struct {
	Allowed bool
	Reason  string
}

var allow = Decision{Allowed: true}

func deny(reason string) Decision { return Decision{Reason: reason} }

// Rules decides the requests of nodes.
type Rules struct {
	pods *Pods
	// uniform holds what every node may do, on resources for which this package has no rule of its own.
	uniform map[action]bool
}

type action struct{ verb, group, resource, subresource string }

// NewRules returns rules that decide by the pods of each node. uniform are the rules of Kubernetes' role system:node,
// which has neither wildcards nor names. Its rules on secrets, config maps, service accounts, leases, nodes and pods are
// ignored, since requests for these are decided by the pods or by name.
func NewRules(pods *Pods, uniform []rbacv1.PolicyRule) *Rules {
	r := &Rules{pods: pods, uniform: map[action]bool{}}
	for _, rule := range uniform {
		for _, group := range rule.APIGroups {
			for _, target := range rule.Resources {
				resource, subresource, _ := strings.Cut(target, "/")
				for _, verb := range rule.Verbs {
					r.uniform[action{verb, group, resource, subresource}] = true
				}
			}
		}
	}
	return r
}

// Decide decides a request of the node. An error means that the index of pods may be behind; the decision is then a
// denial.
func (r *Rules) Decide(node string, q Request) (Decision, error) {
	switch {
	case node == "" || !q.ResourceRequest:
		return Decision{}, nil
	case q.APIGroup == corev1.GroupName:
		switch q.Resource {
		case "secrets":
			return r.read(node, Secret, q)
		case "configmaps":
			return r.read(node, ConfigMap, q)
		case "serviceaccounts":
			return r.account(node, q)
		case "pods":
			return r.pod(node, q)
		case "nodes":
			return ownNode(node, q), nil
		}
	case q.APIGroup == "coordination.k8s.io" && q.Resource == "leases":
		return lease(node, q), nil
	}
	return Decision{Allowed: r.uniform[action{q.Verb, q.APIGroup, q.Resource, q.Subresource}]}, nil
}

// read allows to get, list and watch single objects that a pod of the node uses.
func (r *Rules) read(node string, kind Kind, q Request) (Decision, error) {
	switch {
	case q.Verb != "get" && q.Verb != "list" && q.Verb != "watch":
		return deny("can only read resources of this type"), nil
	case q.Subresource != "":
		return deny("cannot read subresource"), nil
	case q.Namespace == "":
		return deny("can only read namespaced object of this type"), nil
	}
	return r.related(node, kind, q)
}

func (r *Rules) get(node string, kind Kind, q Request) (Decision, error) {
	switch {
	case q.Verb != "get":
		return deny("can only get individual resources of this type"), nil
	case q.Subresource != "":
		return deny("cannot get subresource"), nil
	}
	return r.related(node, kind, q)
}

func (r *Rules) account(node string, q Request) (Decision, error) {
	switch {
	case q.Verb == "create" && q.Subresource != "token":
		return deny("can only create token subresource of serviceaccount"), nil
	case q.Verb == "create" && q.Name == "":
		return deny("can only create tokens for individual service accounts"), nil
	case q.Verb == "create":
		return r.related(node, ServiceAccount, q)
	}
	return r.read(node, ServiceAccount, q)
}

// pod allows to read the node's own pods. Admission limits what the node writes: the authorizer does not know the pod, or it
// does not exist yet.
func (r *Rules) pod(node string, q Request) (Decision, error) {
	switch (action{verb: q.Verb, subresource: q.Subresource}) {
	case action{verb: "get"}:
		return r.get(node, Pod, q)
	case action{verb: "list"}, action{verb: "watch"}:
		return r.listPods(node, q)
	case action{verb: "create"}, action{verb: "delete"},
		action{verb: "update", subresource: "status"}, action{verb: "patch", subresource: "status"},
		action{verb: "create", subresource: "eviction"}:
		return allow, nil
	}
	return Decision{}, nil
}

func (r *Rules) listPods(node string, q Request) (Decision, error) {
	switch {
	case q.SelectedNode == node:
		return allow, nil
	case q.Name != "":
		return r.related(node, Pod, q)
	}
	return deny("can only list/watch pods with spec.nodeName field selector"), nil
}

// ownNode allows a node to use its own Node object, whether it exists yet or not. Admission limits what it writes.
func ownNode(node string, q Request) Decision {
	switch (action{verb: q.Verb, subresource: q.Subresource}) {
	case action{verb: "create"}, action{verb: "update"}, action{verb: "patch"},
		action{verb: "update", subresource: "status"}, action{verb: "patch", subresource: "status"}:
		return allow
	case action{verb: "get"}, action{verb: "list"}, action{verb: "watch"}:
		switch q.Name {
		case node:
			return allow
		case "":
			return deny(fmt.Sprintf("node '%s' cannot read all nodes, only its own Node object", node))
		}
		return deny(fmt.Sprintf("node '%s' cannot read '%s', only its own Node object", node, q.Name))
	}
	return Decision{}
}

func lease(node string, q Request) Decision {
	switch q.Verb {
	case "get", "create", "update", "patch", "delete":
	default:
		return deny("can only get, create, update, patch, or delete a node lease")
	}
	switch {
	case q.Namespace != corev1.NamespaceNodeLease:
		return deny(fmt.Sprintf("can only access leases in the %q system namespace", corev1.NamespaceNodeLease))
	// The name of a new Lease is in the object. Admission checks it.
	case q.Verb != "create" && q.Name != node:
		return deny("can only access node lease with the same name as the requesting node")
	}
	return allow
}

func (r *Rules) related(node string, kind Kind, q Request) (Decision, error) {
	if q.Name == "" {
		return deny("No Object name found"), nil
	}
	ok, err := r.pods.Belongs(node, kind, q.Namespace, q.Name)
	if err != nil {
		return Decision{}, err
	}
	if !ok {
		return deny(fmt.Sprintf("no relationship found between node '%s' and this object", node)), nil
	}
	return allow, nil
}
