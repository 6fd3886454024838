package nodeaccess_test

import (
	"errors"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"lanyard.dev/internal/nodeaccess"
	"lanyard.dev/internal/rbac"
	"lanyard.dev/internal/rbac/bootstrap"
)

type source struct{ err error }

func (s *source) Fresh() error { return s.err }

func pod(namespace, name, node string, change ...func(*corev1.Pod)) *corev1.Pod {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}}
	p.Spec.NodeName, p.Spec.ServiceAccountName = node, name+"-account"
	for _, c := range change {
		c(p)
	}
	return p
}

func secretVolume(name string) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		p.Spec.Volumes = append(p.Spec.Volumes, corev1.Volume{VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: name}}})
	}
}

func configMapVolume(name string) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		v := corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: corev1.LocalObjectReference{Name: name}}}
		p.Spec.Volumes = append(p.Spec.Volumes, corev1.Volume{VolumeSource: v})
	}
}

func mirror(p *corev1.Pod) {
	p.Annotations = map[string]string{corev1.MirrorPodAnnotationKey: "x"}
}

// rules returns rules for the pods "web" on "one" and "db" on "two", each with a secret and a config map, and for one pod
// without a node.
func rules(s nodeaccess.Source) *nodeaccess.Rules {
	pods := nodeaccess.NewPods(s)
	pods.Set(pod("shop", "web", "one", secretVolume("web-key"), configMapVolume("web-conf")))
	pods.Set(pod("shop", "db", "two", secretVolume("db-key"), configMapVolume("db-conf")))
	pods.Set(pod("shop", "waiting", "", secretVolume("later-key")))
	pods.Set(pod("shop", "static", "one", mirror, secretVolume("stolen-key")))
	return nodeaccess.NewRules(pods, bootstrap.NodeRules())
}

const unrelated = "no relationship found between node 'one' and this object"

type request = nodeaccess.Request

func core(verb, resource, namespace, name string) request {
	return request{Verb: verb, ResourceRequest: true, Resource: resource, Namespace: namespace, Name: name}
}

func (b base) sub(subresource string) request {
	b.Subresource = subresource
	return request(b)
}

type base request

func grouped(group string, q request) request {
	q.APIGroup = group
	return q
}

func selected(q request, node string) request {
	q.SelectedNode = node
	return q
}

func TestDecide(t *testing.T) {
	t.Parallel()
	const leases, csrs = "coordination.k8s.io", "certificates.k8s.io"
	for _, test := range []struct {
		why    string
		ask    request
		allow  bool
		reason string
	}{
		{"a secret of its pod", core("get", "secrets", "shop", "web-key"), true, ""},
		{"watches a secret of its pod", core("watch", "secrets", "shop", "web-key"), true, ""},
		{"lists a secret of its pod by name", core("list", "secrets", "shop", "web-key"), true, ""},
		{"a secret of another node's pod", core("get", "secrets", "shop", "db-key"), false, unrelated},
		{"a secret that no pod uses", core("get", "secrets", "shop", "other"), false, unrelated},
		{"a secret of that name elsewhere", core("get", "secrets", "office", "web-key"), false, unrelated},
		{"a secret of a pod without a node", core("get", "secrets", "shop", "later-key"), false, unrelated},
		{"a secret of a mirror pod", core("get", "secrets", "shop", "stolen-key"), false, unrelated},
		{"a secret named like a config map", core("get", "secrets", "shop", "web-conf"), false, unrelated},
		{"all secrets of a namespace", core("list", "secrets", "shop", ""), false, "No Object name found"},
		{"all secrets", core("list", "secrets", "", ""), false, "can only read namespaced object of this type"},
		{"writes a secret of its pod", core("update", "secrets", "shop", "web-key"), false, "can only read resources of this type"},
		{"deletes a secret of its pod", core("delete", "secrets", "shop", "web-key"), false, "can only read resources of this type"},
		{"part of a secret", base(core("get", "secrets", "shop", "web-key")).sub("status"), false, "cannot read subresource"},
		{"a secret of another group", grouped("x.io", core("get", "secrets", "shop", "web-key")), false, ""},

		{"a config map of its pod", core("get", "configmaps", "shop", "web-conf"), true, ""},
		{"a config map of another node's pod", core("get", "configmaps", "shop", "db-conf"), false, unrelated},
		{"all config maps", core("watch", "configmaps", "shop", ""), false, "No Object name found"},
		{"writes a config map", core("patch", "configmaps", "shop", "web-conf"), false, "can only read resources of this type"},

		{"the account of its pod", core("get", "serviceaccounts", "shop", "web-account"), true, ""},
		{"the account of another node's pod", core("get", "serviceaccounts", "shop", "db-account"), false, unrelated},
		{"all accounts", core("list", "serviceaccounts", "shop", ""), false, "No Object name found"},
		{"follows the account of its pod", core("watch", "serviceaccounts", "shop", "web-account"), true, ""},
		{"follows the account of another node's pod", core("watch", "serviceaccounts", "shop", "db-account"), false, unrelated},
		{"all accounts of all namespaces", core("list", "serviceaccounts", "", ""), false, "can only read namespaced object of this type"},
		{"makes an account", core("create", "serviceaccounts", "shop", ""), false, "can only create token subresource of serviceaccount"},
		{"changes an account", core("update", "serviceaccounts", "shop", "web-account"), false, "can only read resources of this type"},
		{"a token for the account of its pod", base(core("create", "serviceaccounts", "shop", "web-account")).sub("token"), true, ""},
		{"a token for the account of another node's pod", base(core("create", "serviceaccounts", "shop", "db-account")).sub("token"), false, unrelated},
		{"a token for the account of a pod without a node", base(core("create", "serviceaccounts", "shop", "waiting-account")).sub("token"), false, unrelated},
		{"a token for the account of a mirror pod", base(core("create", "serviceaccounts", "shop", "static-account")).sub("token"), false, unrelated},
		{"a token for no account", base(core("create", "serviceaccounts", "shop", "")).sub("token"), false, "can only create tokens for individual service accounts"},
		{"reads tokens", base(core("get", "serviceaccounts", "shop", "web-account")).sub("token"), false, "cannot read subresource"},

		{"its pod", core("get", "pods", "shop", "web"), true, ""},
		{"its mirror pod", core("get", "pods", "shop", "static"), true, ""},
		{"another node's pod", core("get", "pods", "shop", "db"), false, unrelated},
		{"a pod without a node", core("get", "pods", "shop", "waiting"), false, unrelated},
		{"its pods", selected(core("list", "pods", "", ""), "one"), true, ""},
		{"watches its pods", selected(core("watch", "pods", "", ""), "one"), true, ""},
		{"another node's pods", selected(core("list", "pods", "", ""), "two"), false, "can only list/watch pods with spec.nodeName field selector"},
		{"all pods", core("list", "pods", "", ""), false, "can only list/watch pods with spec.nodeName field selector"},
		{"watches its pod by name", core("watch", "pods", "shop", "web"), true, ""},
		{"watches another node's pod by name", core("watch", "pods", "shop", "db"), false, unrelated},
		{"makes a pod, for admission to see", core("create", "pods", "shop", ""), true, ""},
		{"deletes a pod, for admission to see", core("delete", "pods", "shop", "web"), true, ""},
		{"deletes all pods", core("deletecollection", "pods", "shop", ""), false, ""},
		{"changes a pod", core("update", "pods", "shop", "web"), false, ""},
		{"a pod's status", base(core("patch", "pods", "shop", "web")).sub("status"), true, ""},
		{"evicts", base(core("create", "pods", "shop", "web")).sub("eviction"), true, ""},
		{"runs commands in its pod", base(core("create", "pods", "shop", "web")).sub("exec"), false, ""},
		{"binds a pod to itself", base(core("create", "pods", "shop", "waiting")).sub("binding"), false, ""},

		{"itself", core("get", "nodes", "", "one"), true, ""},
		{"watches itself", core("watch", "nodes", "", "one"), true, ""},
		{"another node", core("get", "nodes", "", "two"), false, "node 'one' cannot read 'two', only its own Node object"},
		{"all nodes", core("list", "nodes", "", ""), false, "node 'one' cannot read all nodes, only its own Node object"},
		{"registers, for admission to see", core("create", "nodes", "", ""), true, ""},
		{"its status", base(core("patch", "nodes", "", "one")).sub("status"), true, ""},
		{"deletes itself", core("delete", "nodes", "", "one"), false, ""},
		{"a node's proxy", base(core("get", "nodes", "", "one")).sub("proxy"), false, ""},

		{"its lease", grouped(leases, core("update", "leases", "kube-node-lease", "one")), true, ""},
		{"makes a lease, for admission to see", grouped(leases, core("create", "leases", "kube-node-lease", "")), true, ""},
		{"another node's lease", grouped(leases, core("get", "leases", "kube-node-lease", "two")), false, "can only access node lease with the same name as the requesting node"},
		{"a lease elsewhere", grouped(leases, core("get", "leases", "shop", "one")), false, `can only access leases in the "kube-node-lease" system namespace`},
		{"leases of another group", grouped("example.com", core("get", "leases", "kube-node-lease", "one")), false, ""},
		{"what else the group has", grouped(leases, core("get", "leasecandidates", "kube-node-lease", "one")), false, ""},
		{"all leases", grouped(leases, core("list", "leases", "kube-node-lease", "")), false, "can only get, create, update, patch, or delete a node lease"},

		{"asks for a certificate", grouped(csrs, core("create", "certificatesigningrequests", "", "")), true, ""},
		{"sees its certificate", grouped(csrs, core("watch", "certificatesigningrequests", "", "")), true, ""},
		{"approves a certificate", grouped(csrs, base(core("update", "certificatesigningrequests", "", "x")).sub("approval")), false, ""},
		{"writes an event", core("create", "events", "shop", ""), true, ""},
		{"amends an event", core("patch", "events", "shop", "x"), true, ""},
		{"reads events", core("list", "events", "shop", ""), false, ""},
		{"reviews a token", grouped("authentication.k8s.io", core("create", "tokenreviews", "", "")), true, ""},
		{"asks who may do what", grouped("authorization.k8s.io", core("create", "subjectaccessreviews", "", "")), true, ""},
		{"reads roles", grouped("rbac.authorization.k8s.io", core("list", "clusterroles", "", "")), false, ""},
		{"impersonates", core("impersonate", "users", "", "x"), false, ""},
		{"a path", request{Verb: "get"}, false, ""},
	} {
		t.Run(test.why, func(t *testing.T) {
			t.Parallel()
			got, err := rules(&source{}).Decide("one", test.ask)
			if err != nil || got.Allowed != test.allow || got.Reason != test.reason {
				t.Errorf("got %+v, %v", got, err)
			}
			if decision, err := rules(&source{}).Decide("", test.ask); decision.Allowed || err != nil {
				t.Errorf("a node without a name: %+v, %v", decision, err)
			}
		})
	}
}

func TestStaleGraphAllowsNothingThatHangsOnIt(t *testing.T) {
	t.Parallel()
	stale := errors.New("stale")
	r := rules(&source{stale})
	for _, ask := range []request{
		core("get", "secrets", "shop", "web-key"), core("get", "configmaps", "shop", "web-conf"), core("get", "pods", "shop", "web"),
		core("get", "serviceaccounts", "shop", "web-account"), base(core("create", "serviceaccounts", "shop", "web-account")).sub("token"),
	} {
		if got, err := r.Decide("one", ask); got.Allowed || !errors.Is(err, stale) {
			t.Errorf("%s %s: %+v, %v", ask.Verb, ask.Resource, got, err)
		}
	}
	if got, err := r.Decide("one", core("get", "nodes", "", "one")); !got.Allowed || err != nil {
		t.Errorf("its own node: %+v, %v", got, err)
	}
}

// TestUniformRules compares what every node may do with the decisions of RBAC by the same rules.
func TestUniformRules(t *testing.T) {
	t.Parallel()
	r := rules(&source{})
	uniform := bootstrap.NodeRules()
	for _, group := range []string{"", "certificates.k8s.io", "storage.k8s.io", "authorization.k8s.io"} {
		for _, resource := range []string{"events", "services", "certificatesigningrequests", "csinodes", "csidrivers", "persistentvolumes", "tokenreviews"} {
			for _, sub := range []string{"", "status", "approval"} {
				for _, verb := range []string{"get", "list", "watch", "create", "update", "patch", "delete", "deletecollection", "*"} {
					ask := grouped(group, base(core(verb, resource, "", "x")).sub(sub))
					want := false
					for i := range uniform {
						want = want || rbac.RuleAllows(&uniform[i], rbac.Request{
							Verb: verb, ResourceRequest: true, APIGroup: group, Resource: resource, Subresource: sub, Name: "x",
						})
					}
					if got, _ := r.Decide("one", ask); got.Allowed != want {
						t.Errorf("%s %s/%s in %q: allowed %v", verb, resource, sub, group, got.Allowed)
					}
				}
			}
		}
	}
}

func TestIdentify(t *testing.T) {
	t.Parallel()
	nodes := []string{"system:authenticated", "system:nodes"}
	for _, test := range []struct {
		user   string
		groups []string
		node   string
		ok     bool
	}{
		{"system:node:one", nodes, "one", true},
		{"system:node:", nodes, "", true},
		{"system:node:one", []string{"system:authenticated"}, "", false},
		{"one", nodes, "", false},
		{"System:node:one", nodes, "", false},
		{"system:serviceaccount:system:node:one", nodes, "", false},
	} {
		if node, ok := nodeaccess.Identify(test.user, test.groups); node != test.node || ok != test.ok {
			t.Errorf("%s %v: got %q, %v", test.user, test.groups, node, ok)
		}
	}
}
