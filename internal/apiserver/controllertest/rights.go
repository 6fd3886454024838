package controllertest

import (
	"context"
	"flag"
	"fmt"
	"os"
	"slices"
	"sync"
	"testing"

	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apiserver/pkg/authorization/authorizer"

	"lanyard.dev/internal/rbac/bootstrap"
)

// recorder records the rights that controllers use.
type recorder struct {
	authorizer.UnconditionalAuthorizer
}

// used holds what was allowed to controllers by any cluster of this process.
var used struct {
	mu  sync.Mutex
	all map[string][]authorizer.AttributesRecord // by the name of the controller
}

// Authorize implements authorizer.Authorizer.
func (r recorder) Authorize(ctx context.Context, a authorizer.Attributes) (authorizer.Decision, string, error) {
	decision, reason, err := r.UnconditionalAuthorizer.Authorize(ctx, a)
	if name, ok := controllerName(a.GetUser().GetName()); ok && decision == authorizer.DecisionAllow {
		used.mu.Lock()
		defer used.mu.Unlock()
		if used.all == nil {
			used.all = map[string][]authorizer.AttributesRecord{}
		}
		used.all[name] = append(used.all[name], authorizer.AttributesRecord{
			Verb: a.GetVerb(), Namespace: a.GetNamespace(), APIGroup: a.GetAPIGroup(), Resource: a.GetResource(), Subresource: a.GetSubresource(), Name: a.GetName(),
		})
	}
	return decision, reason, err
}

// TestRoles runs the tests of a package and then fails if the roles of the given controllers grant a right that no call
// of these tests used. That each call is allowed needs no check: clusters refuse others, as the server does. A package
// calls it in TestMain. Some of the tests alone, as with -run, use some of the rights alone, so nothing is checked
// then.
//
// Rights on events are left out: the tests of package controller record events as each controller that has them.
func TestRoles(m *testing.M, controllers ...string) int {
	code := m.Run()
	if code != 0 || flag.Lookup("test.run").Value.String() != "" || flag.Lookup("test.skip").Value.String() != "" || flag.Lookup("test.list").Value.String() != "" {
		return code
	}
	for _, name := range controllers {
		for _, right := range unused(name) {
			fmt.Fprintf(os.Stderr, "FAIL: the role %s grants %s, which no call of these tests used\n", bootstrap.ControllerUser(name), right)
			code = 1
		}
	}
	return code
}

// unused returns the rights that the roles of a controller grant and that it did not use.
func unused(name string) []string {
	used.mu.Lock()
	defer used.mu.Unlock()
	var rights []string
	check := func(namespace string, rules []rbacv1.PolicyRule) {
		for _, r := range each(rules) {
			if r.resource != "events" && !slices.ContainsFunc(used.all[name], func(a authorizer.AttributesRecord) bool { return r.allows(namespace, a) }) {
				rights = append(rights, fmt.Sprintf("%+v in namespace %q", r, namespace))
			}
		}
	}
	for _, role := range bootstrap.ControllerRoles() {
		if role.Name == bootstrap.ControllerUser(name) {
			check("", role.Rules)
		}
	}
	for _, role := range bootstrap.Roles() {
		if role.Name == bootstrap.ControllerUser(name) {
			check(role.Namespace, role.Rules)
		}
	}
	return rights
}

// right is one verb on one resource, and on one object if name is not "".
type right struct{ verb, group, resource, name string }

// each returns the single rights that rules grant.
func each(rules []rbacv1.PolicyRule) (all []right) {
	for _, rule := range rules {
		names := rule.ResourceNames
		if len(names) == 0 {
			names = []string{""}
		}
		for _, verb := range rule.Verbs {
			for _, group := range rule.APIGroups {
				for _, resource := range rule.Resources {
					for _, name := range names {
						all = append(all, right{verb, group, resource, name})
					}
				}
			}
		}
	}
	return all
}

func (r right) allows(namespace string, a authorizer.AttributesRecord) bool {
	resource := a.Resource
	if a.Subresource != "" {
		resource += "/" + a.Subresource
	}
	return r.verb == a.Verb && (r.group == "*" || r.group == a.APIGroup) && (r.resource == "*" || r.resource == resource) &&
		(r.name == "" || r.name == a.Name) && (namespace == "" || namespace == a.Namespace)
}
