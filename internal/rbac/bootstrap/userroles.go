package bootstrap

import (
	"slices"
	"strings"

	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const aggregateTo = "rbac.authorization.k8s.io/aggregate-to-"

// userRoles are the roles for the users of a cluster, and the parts that they are aggregated from: view is part of
// edit, and edit of admin.
func userRoles() []*rbacv1.ClusterRole {
	return []*rbacv1.ClusterRole{
		aggregate(clusterRole("admin"), "admin"),
		aggregate(partOf(clusterRole("edit"), "admin"), "edit"),
		aggregate(partOf(clusterRole("view"), "edit"), "view"),
		partOf(clusterRole("system:aggregate-to-admin", adminRules()...), "admin"),
		partOf(clusterRole("system:aggregate-credentials-to-admin", credentialRules()...), "admin"),
		partOf(clusterRole("system:aggregate-to-edit", editRules()...), "edit"),
		partOf(clusterRole("system:aggregate-to-view", viewRules()...), "view"),
	}
}

func adminRules() []rbacv1.PolicyRule {
	return []rbacv1.PolicyRule{
		rule(create(), authorization, "localsubjectaccessreviews"),
		rule(append(read(), write()...), rbacv1.GroupName, "rolebindings", "roles"),
	}
}

// credentialRules allow to see who holds tokens of the accounts of a namespace, and to revoke them. They are not Kubernetes'. They are not
// in view and edit: a record shows who requested a token, from where and with which program, and what a token is used for is the
// concern of those who grant the rights of its account.
func credentialRules() []rbacv1.PolicyRule {
	return []rbacv1.PolicyRule{rule(append(read(), "delete", "deletecollection"), identity, "issuedtokens")}
}

// editRules allow to write what view may read, and to read what view must not: a user who reads Secrets, runs commands
// in pods or impersonates a service account has the rights of that account.
func editRules() []rbacv1.PolicyRule {
	return []rbacv1.PolicyRule{
		rule(read(), core, "pods/attach", "pods/exec", "pods/portforward", "pods/proxy", "secrets", "services/proxy"),
		rule([]string{"impersonate"}, core, "serviceaccounts"),
		rule(write(), core, "pods", "pods/attach", "pods/exec", "pods/portforward", "pods/proxy"),
		rule(create(), core, "pods/eviction"),
		rule(write(), core, "configmaps", "events", "persistentvolumeclaims", "replicationcontrollers",
			"replicationcontrollers/scale", "secrets", "serviceaccounts", "services", "services/proxy"),
		rule(create(), core, "serviceaccounts/token"),
		rule(write(), "apps", "daemonsets", "deployments", "deployments/rollback", "deployments/scale",
			"replicasets", "replicasets/scale", "statefulsets", "statefulsets/scale"),
		rule(write(), "autoscaling", "horizontalpodautoscalers"),
		rule(write(), "batch", "cronjobs", "jobs"),
		rule(write(), "extensions", "daemonsets", "deployments", "deployments/rollback", "deployments/scale",
			"ingresses", "networkpolicies", "replicasets", "replicasets/scale", "replicationcontrollers/scale"),
		rule(write(), "policy", "poddisruptionbudgets"),
		rule(write(), "networking.k8s.io", "ingresses", "networkpolicies"),
		rule(append(read(), write()...), coordination, "leases"),
		rule(write(), "resource.k8s.io", "resourceclaims", "resourceclaimtemplates"),
	}
}

// viewRules do not include Secrets, roles and bindings.
func viewRules() []rbacv1.PolicyRule {
	return []rbacv1.PolicyRule{
		rule(read(), core, "configmaps", "endpoints", "persistentvolumeclaims", "persistentvolumeclaims/status", "pods",
			"replicationcontrollers", "replicationcontrollers/scale", "serviceaccounts", "services", "services/status"),
		rule(read(), core, "bindings", "events", "limitranges", "namespaces/status", "pods/log", "pods/status",
			"replicationcontrollers/status", "resourcequotas", "resourcequotas/status"),
		rule(read(), core, "namespaces"),
		rule(read(), "discovery.k8s.io", "endpointslices"),
		rule(read(), "apps", "controllerrevisions", "daemonsets", "daemonsets/status", "deployments",
			"deployments/scale", "deployments/status", "replicasets", "replicasets/scale", "replicasets/status",
			"statefulsets", "statefulsets/scale", "statefulsets/status"),
		rule(read(), "autoscaling", "horizontalpodautoscalers", "horizontalpodautoscalers/status"),
		rule(read(), "batch", "cronjobs", "cronjobs/status", "jobs", "jobs/status"),
		rule(read(), "extensions", "daemonsets", "daemonsets/status", "deployments", "deployments/scale",
			"deployments/status", "ingresses", "ingresses/status", "networkpolicies", "replicasets",
			"replicasets/scale", "replicasets/status", "replicationcontrollers/scale"),
		rule(read(), "policy", "poddisruptionbudgets", "poddisruptionbudgets/status"),
		rule(read(), "networking.k8s.io", "ingresses", "ingresses/status", "networkpolicies"),
		rule(read(), "resource.k8s.io", "resourceclaims", "resourceclaims/status", "resourceclaimtemplates"),
	}
}

func partOf(r *rbacv1.ClusterRole, whole string) *rbacv1.ClusterRole {
	r.Labels[aggregateTo+whole] = "true"
	return r
}

func aggregate(r *rbacv1.ClusterRole, whole string) *rbacv1.ClusterRole {
	r.AggregationRule = &rbacv1.AggregationRule{ClusterRoleSelectors: []metav1.LabelSelector{
		{MatchLabels: map[string]string{aggregateTo + whole: "true"}},
	}}
	return r
}

// aggregated sorts the roles by name and fills in the rules of view, edit and admin, in this order, so that the parts
// of each are complete. The rules are in the order of the names of the parts, without repetitions, as Kubernetes'
// controller writes them.
func aggregated(roles []*rbacv1.ClusterRole) []*rbacv1.ClusterRole {
	slices.SortFunc(roles, func(a, b *rbacv1.ClusterRole) int { return strings.Compare(a.Name, b.Name) })
	for _, whole := range []string{"view", "edit", "admin"} {
		var rules []rbacv1.PolicyRule
		for _, part := range roles {
			if part.Labels[aggregateTo+whole] == "true" {
				rules = appendNew(rules, part.Rules)
			}
		}
		i := slices.IndexFunc(roles, func(r *rbacv1.ClusterRole) bool { return r.Name == whole })
		roles[i].Rules = rules
	}
	return roles
}

func appendNew(rules, more []rbacv1.PolicyRule) []rbacv1.PolicyRule {
	for _, r := range more {
		if !slices.ContainsFunc(rules, func(o rbacv1.PolicyRule) bool { return equality.Semantic.DeepEqual(o, r) }) {
			rules = append(rules, *r.DeepCopy())
		}
	}
	return rules
}
