package authz_test

import (
	"errors"
	"strings"
	"sync"
	"testing"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"

	"lanyard.dev/internal/apiserver/authz"
	"lanyard.dev/internal/apiserver/outage"
	"lanyard.dev/internal/nodeaccess"
	"lanyard.dev/internal/rbac"
)

func nodeUser(name string) *user.DefaultInfo {
	return &user.DefaultInfo{Name: name, Groups: []string{"system:nodes", "system:authenticated"}}
}

// union returns an authorizer with one pod, which is on node one and uses the secret "key". By policy, all nodes may
// read secrets with the name "shared".
func union(source *source) *authz.Union {
	graph := nodeaccess.NewPods(source)
	graph.Set(keyPod("one"))
	index := rbac.NewIndex()
	set(index,
		&rbacv1.ClusterRole{ObjectMeta: meta("", "shared", "1"), Rules: rule("get", "", "secrets", "shared")},
		&rbacv1.ClusterRoleBinding{ObjectMeta: meta("", "shared", "2"), RoleRef: ref("ClusterRole", "shared"),
			Subjects: []rbacv1.Subject{{Kind: "Group", APIGroup: rbacv1.GroupName, Name: "system:nodes"}}},
	)
	return authz.NewUnion(authz.NewNode(nodeaccess.NewRules(graph, nil), source), authz.New(index))
}

func keyPod(node string) *corev1.Pod {
	pod := &corev1.Pod{ObjectMeta: meta("shop", "web", "3")}
	pod.Spec.NodeName = node
	pod.Spec.ImagePullSecrets = []corev1.LocalObjectReference{{Name: "key"}}
	return pod
}

// TestUnion checks requests of nodes that the pod allows, that the policy allows, and that nothing allows.
func TestUnion(t *testing.T) {
	t.Parallel()
	attributes := authorizer.AttributesRecord{User: nodeUser("system:node:one"), Verb: "get", Resource: "secrets", Namespace: "shop", Name: "key", ResourceRequest: true}
	for _, test := range []struct {
		name   string
		mutate func(*authorizer.AttributesRecord)
		want   authorizer.Decision
		reason string
	}{
		{"its own", func(*authorizer.AttributesRecord) {}, authorizer.DecisionAllow, ""},
		{"another's", func(a *authorizer.AttributesRecord) { a.User = nodeUser("system:node:two") }, authorizer.DecisionNoOpinion,
			"no relationship found between node 'two' and this object"},
		{"granted besides", func(a *authorizer.AttributesRecord) { a.Name = "shared" }, authorizer.DecisionAllow,
			`RBAC: allowed by ClusterRoleBinding "shared" of ClusterRole "shared" to Group "system:nodes"`},
		{"no name", func(a *authorizer.AttributesRecord) { a.User = nodeUser("system:node:") }, authorizer.DecisionNoOpinion,
			`unknown node for user "system:node:"`},
		{"not in the group", func(a *authorizer.AttributesRecord) { a.User = &user.DefaultInfo{Name: "system:node:one"} }, authorizer.DecisionNoOpinion, ""},
		{"no user", func(a *authorizer.AttributesRecord) { a.User = nil }, authorizer.DecisionNoOpinion, "no user on request"},
		{"a path", func(a *authorizer.AttributesRecord) { a.ResourceRequest = false }, authorizer.DecisionNoOpinion, ""},
		{"its pods", listPods("spec.nodeName=one", nil), authorizer.DecisionAllow, ""},
		{"some of its pods", listPods("status.phase=Running,spec.nodeName=one", nil), authorizer.DecisionAllow, ""},
		{"all but its pods", listPods("spec.nodeName!=one", nil), authorizer.DecisionNoOpinion, "can only list/watch pods with spec.nodeName field selector"},
		{"another's pods", listPods("spec.nodeName=two", nil), authorizer.DecisionNoOpinion, "can only list/watch pods with spec.nodeName field selector"},
		{"a selector that cannot be read", listPods("spec.nodeName=one", errors.New("bad")), authorizer.DecisionNoOpinion, "can only list/watch pods with spec.nodeName field selector"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			attributes := attributes
			test.mutate(&attributes)
			decision, reason, err := union(&source{}).Authorize(t.Context(), attributes)
			if decision != test.want || reason != test.reason || err != nil {
				t.Errorf("got %v, %q, %v", decision, reason, err)
			}
		})
	}
}

func listPods(selector string, fault error) func(*authorizer.AttributesRecord) {
	return func(a *authorizer.AttributesRecord) {
		a.Verb, a.Resource, a.Name, a.Namespace = "list", "pods", "", ""
		a.FieldSelectorRequirements, a.FieldSelectorParsingErr = fields.ParseSelectorOrDie(selector).Requirements(), fault
	}
}

// TestStaleGraph checks that no request is allowed by a pod that may be gone.
func TestStaleGraph(t *testing.T) {
	t.Parallel()
	stale := errors.New("stale")
	attributes := authorizer.AttributesRecord{User: nodeUser("system:node:one"), Verb: "get", Resource: "secrets", Namespace: "shop", Name: "key", ResourceRequest: true}
	if decision, _, err := union(&source{stale}).Authorize(t.Context(), attributes); decision != authorizer.DecisionNoOpinion || !errors.Is(err, stale) {
		t.Errorf("got %v, %v", decision, err)
	}
}

// TestRulesOfANodeAreIncomplete checks that the list of a node's rules is marked as incomplete.
func TestRulesOfANodeAreIncomplete(t *testing.T) {
	t.Parallel()
	for who, want := range map[*user.DefaultInfo]bool{nodeUser("system:node:one"): true, nodeUser("someone"): false} {
		rules, _, incomplete, err := union(&source{}).RulesFor(t.Context(), who, "shop")
		if len(rules) != 1 || incomplete != want || (err != nil) != want || want && !strings.Contains(err.Error(), "node authorizer") {
			t.Errorf("%s: %d rules, incomplete %v, %v", who.Name, len(rules), incomplete, err)
		}
	}
}

// TestConcurrentReaders reads the graph while a pod moves between two nodes. A third node must never have access.
func TestConcurrentReaders(t *testing.T) {
	t.Parallel()
	graph := nodeaccess.NewPods(&source{})
	graph.Set(keyPod("one"))
	var readers sync.WaitGroup
	stop := make(chan struct{})
	for range 4 {
		readers.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if third, err := graph.Belongs("three", nodeaccess.Secret, "shop", "key"); third || err != nil {
					t.Error("a node that never had the pod may read its secret")
				}
				if _, err := graph.Belongs("one", nodeaccess.Secret, "shop", "key"); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for range 500 {
		graph.Set(keyPod("two"))
		graph.Set(keyPod("one"))
	}
	close(stop)
	readers.Wait()
	if ok, _ := graph.Belongs("two", nodeaccess.Secret, "shop", "key"); ok {
		t.Error("the node that the pod has left may still read its secret")
	}
}

// TestDecides checks whose requests can be decided while the feed of pods or the feed of the policy is stale.
func TestDecides(t *testing.T) {
	t.Parallel()
	fresh, stale := &source{}, &source{errors.New("stale")}
	person, master := &user.DefaultInfo{Name: "jane"}, &user.DefaultInfo{Name: "admin", Groups: []string{user.SystemPrivilegedGroup}}
	for _, test := range []struct {
		name         string
		pods, policy *source
		who          user.Info
		want         bool
	}{
		{"a person", fresh, fresh, person, true},
		{"a person, pods stale", stale, fresh, person, true},
		{"a person, policy stale", fresh, stale, person, false},
		{"a node", fresh, fresh, nodeUser("system:node:one"), true},
		{"a node, pods stale", stale, fresh, nodeUser("system:node:one"), false},
		{"a node, policy stale", fresh, stale, nodeUser("system:node:one"), false},
		{"an administrator", stale, stale, master, true},
		{"no user", stale, stale, nil, true},
	} {
		az := authz.NewUnion(authz.NewNode(nodeaccess.NewRules(nodeaccess.NewPods(test.pods), nil), test.pods), authz.New(rbac.NewIndex(), test.policy))
		if err := az.Decides(test.who); (err == nil) != test.want || err != nil && outage.Of(err) == nil {
			t.Errorf("%s: %v, want decided=%v", test.name, err, test.want)
		}
	}
	// What a node may do because of its name does not depend on pods.
	az := authz.NewUnion(authz.NewNode(nodeaccess.NewRules(nodeaccess.NewPods(stale), nil), stale), authz.New(rbac.NewIndex(), stale))
	attributes := authorizer.AttributesRecord{User: nodeUser("system:node:one"), Verb: "get", Resource: "nodes", Name: "one", ResourceRequest: true}
	if decision, _, err := az.Authorize(t.Context(), attributes); decision != authorizer.DecisionAllow || err != nil {
		t.Errorf("its own Node: %v, %v", decision, err)
	}
}
