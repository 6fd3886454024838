package authz

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"k8s.io/apimachinery/pkg/selection"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"

	"lanyard.dev/internal/apiserver/outage"
	"lanyard.dev/internal/nodeaccess"
)

// Node decides the requests of nodes by the pods that they run. It has no opinion on other requests.
type Node struct {
	authorizer.AuthorizerFunc
	rules *nodeaccess.Rules
	pods  Source
}

var _ authorizer.Authorizer = &Node{}

// NewNode returns an authorizer of nodes. pods is the feed from which the rules know the pods.
func NewNode(rules *nodeaccess.Rules, pods Source) *Node {
	n := &Node{rules: rules, pods: pods}
	n.AuthorizerFunc = n.decide
	return n
}

func (n *Node) decide(_ context.Context, request authorizer.Attributes) (authorizer.Decision, string, error) {
	who := request.GetUser()
	if who == nil {
		return authorizer.DecisionNoOpinion, "", nil
	}
	name, ok := nodeaccess.Identify(who.GetName(), who.GetGroups())
	switch {
	case !ok:
		return authorizer.DecisionNoOpinion, "", nil
	case name == "":
		return authorizer.DecisionNoOpinion, fmt.Sprintf("unknown node for user %q", who.GetName()), nil
	}
	decision, err := n.rules.Decide(name, nodeaccess.Request{
		Verb: request.GetVerb(), ResourceRequest: request.IsResourceRequest(),
		APIGroup: request.GetAPIGroup(), Resource: request.GetResource(), Subresource: request.GetSubresource(),
		Namespace: request.GetNamespace(), Name: request.GetName(), SelectedNode: selectedNode(request),
	})
	if decision.Allowed {
		return authorizer.DecisionAllow, "", nil
	}
	return authorizer.DecisionNoOpinion, decision.Reason, outage.New(err)
}

// selectedNode returns the node of a list or watch that is restricted to the pods of one node. It returns "" if the request has
// no such field selector, or one that cannot be parsed.
func selectedNode(request authorizer.Attributes) string {
	requirements, err := request.GetFieldSelector()
	if err != nil {
		return ""
	}
	for _, r := range requirements {
		if r.Field == "spec.nodeName" && r.Operator == selection.Equals {
			return r.Value
		}
	}
	return ""
}

// Union allows a request if the authorizer of nodes or the authorizer of the policy allows it.
type Union struct {
	authorizer.AuthorizerFunc
	node   *Node
	policy *Authorizer
}

var (
	_ authorizer.Authorizer   = &Union{}
	_ authorizer.RuleResolver = &Union{}
)

// NewUnion returns the authorizer of all requests.
func NewUnion(node *Node, policy *Authorizer) *Union {
	u := &Union{node: node, policy: policy}
	u.AuthorizerFunc = u.decide
	return u
}

func (u *Union) decide(ctx context.Context, request authorizer.Attributes) (authorizer.Decision, string, error) {
	decision, reason, err := u.node.decide(ctx, request)
	if decision != authorizer.DecisionNoOpinion {
		return decision, reason, err
	}
	decision, second, err2 := u.policy.decide(ctx, request)
	if decision != authorizer.DecisionNoOpinion {
		return decision, second, err2
	}
	if reason != "" && second != "" {
		reason += "\n"
	}
	return decision, reason + second, errors.Join(err, err2)
}

// Decides returns an outage.Error if some requests of the user cannot be decided now. Requests of system:masters can always be
// decided.
func (u *Union) Decides(who user.Info) error {
	if who == nil || slices.Contains(who.GetGroups(), user.SystemPrivilegedGroup) {
		return nil
	}
	if _, ok := nodeaccess.Identify(who.GetName(), who.GetGroups()); ok {
		if err := u.node.pods.Fresh(); err != nil {
			return outage.New(err)
		}
	}
	return u.policy.fresh()
}

// errNodeRules is the reason why the list of a node's rules is incomplete.
var errNodeRules = errors.New("node authorizer does not support user rule resolution")

// RulesFor implements authorizer.RuleResolver. The list does not contain what a node may do because of the pods that it runs.
func (u *Union) RulesFor(ctx context.Context, who user.Info, namespace string) ([]authorizer.ResourceRuleInfo, []authorizer.NonResourceRuleInfo, bool, error) {
	resource, paths, incomplete, err := u.policy.RulesFor(ctx, who, namespace)
	if _, ok := nodeaccess.Identify(who.GetName(), who.GetGroups()); ok {
		incomplete, err = true, errors.Join(errNodeRules, err)
	}
	return resource, paths, incomplete, err
}
