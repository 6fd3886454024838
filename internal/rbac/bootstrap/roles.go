package bootstrap

import (
	"cmp"
	"slices"

	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const (
	labelKey   = "kubernetes.io/bootstrapping"
	labelValue = "rbac-defaults"

	core           = ""
	authentication = "authentication.k8s.io"
	authorization  = "authorization.k8s.io"
	certificates   = "certificates.k8s.io"
	coordination   = "coordination.k8s.io"
	identity       = "identity.lanyard.dev"
	storage        = "storage.k8s.io"

	// The certificate controller approves a request for a node's client certificate if the requester has one of these roles: the
	// first for the certificate of any node, the second for the certificate of the requester itself.
	nodeClientRole     = "system:certificates.k8s.io:certificatesigningrequests:nodeclient"
	selfNodeClientRole = "system:certificates.k8s.io:certificatesigningrequests:selfnodeclient"
	// It approves a serving certificate for the node that requests it if the node has this role.
	selfNodeServerRole = "system:certificates.k8s.io:certificatesigningrequests:selfnodeserver"

	kubeletAdminRole = "system:kubelet-api-admin"
)

// ClusterRoles returns Kubernetes' default ClusterRoles and those for Lanyard's own kinds, sorted by name. Those with an
// aggregationRule (admin, edit, view) also carry the rules that it selects among the defaults, so that they work before the
// aggregation controller runs.
func ClusterRoles() []*rbacv1.ClusterRole {
	roles := []*rbacv1.ClusterRole{
		clusterRole("cluster-admin",
			rule([]string{"*"}, "*", "*"),
			paths([]string{"*"}, "*")),
		clusterRole("system:auth-delegator",
			rule(create(), authentication, "tokenreviews"),
			rule(create(), authorization, "subjectaccessreviews")),
		clusterRole("system:basic-user",
			rule(create(), authorization, "selfsubjectaccessreviews", "selfsubjectrulesreviews"),
			rule(create(), authentication, "selfsubjectreviews")),
		clusterRole(nodeClientRole, rule(create(), certificates, "certificatesigningrequests/nodeclient")),
		clusterRole(selfNodeClientRole, rule(create(), certificates, "certificatesigningrequests/selfnodeclient")),
		clusterRole(selfNodeServerRole, rule(create(), certificates, "certificatesigningrequests/selfnodeserver")),
		clusterRole(kubeletAdminRole,
			rule(read(), core, "nodes"),
			rule([]string{"proxy"}, core, "nodes"),
			rule([]string{"*"}, core, "nodes/configz", "nodes/healthz", "nodes/log", "nodes/metrics", "nodes/pods", "nodes/proxy", "nodes/stats")),
		clusterRole("system:node", NodeRules()...),
		clusterRole("system:node-bootstrapper",
			rule(append(read(), "create"), certificates, "certificatesigningrequests")),
	}
	roles = append(roles, pathRoles()...)
	roles = append(roles, certificateRoles()...)
	roles = append(roles, userRoles()...)
	return aggregated(roles)
}

// Roles returns the default Roles: the roles of the controllers that need rights in kube-system alone, and a role that lets every
// authenticated user read the CA of the nodes, which scrapers of their metrics need. Kubernetes publishes no such CA.
func Roles() []*rbacv1.Role {
	nodesCA := &rbacv1.Role{
		ObjectMeta: metaIn(metav1.NamespacePublic, NodesCAConfigMap),
		Rules:      []rbacv1.PolicyRule{named(rule(read(), core, "configmaps"), NodesCAConfigMap)},
	}
	roles := append(controllerSystemRoles(), nodesCA)
	slices.SortFunc(roles, func(a, b *rbacv1.Role) int { return cmp.Compare(a.Name, b.Name) })
	return roles
}

// pathRoles grant access to paths, and to no objects.
func pathRoles() []*rbacv1.ClusterRole {
	get := []string{"get"}
	health := []string{"/healthz", "/livez", "/readyz"}
	version := []string{"/version", "/version/"}
	return []*rbacv1.ClusterRole{
		clusterRole("system:discovery",
			paths(get, slices.Concat(health, version,
				[]string{"/api", "/api/*", "/apis", "/apis/*", "/openapi", "/openapi/*"})...)),
		clusterRole("system:monitoring",
			paths(get, slices.Concat(health,
				[]string{"/healthz/*", "/livez/*", "/readyz/*", "/metrics", "/metrics/slis"})...)),
		clusterRole("system:public-info-viewer",
			paths(get, slices.Concat(health, version)...)),
		clusterRole("system:service-account-issuer-discovery",
			paths(get, "/.well-known/openid-configuration", "/.well-known/openid-configuration/",
				"/openid/v1/jwks", "/openid/v1/jwks/")),
	}
}

// certificateRoles allow the approval of certificate requests, one role for each signer. None of them is bound.
func certificateRoles() []*rbacv1.ClusterRole {
	const prefix = "system:certificates.k8s.io:"
	var roles []*rbacv1.ClusterRole
	for _, signer := range []string{"kube-apiserver-client", "kube-apiserver-client-kubelet", "kubelet-serving", "legacy-unknown"} {
		approve := rule([]string{"approve"}, certificates, "signers")
		approve.ResourceNames = []string{"kubernetes.io/" + signer}
		roles = append(roles, clusterRole(prefix+signer+"-approver", approve))
	}
	return roles
}

// NodeRules returns the rules of Kubernetes' system:node. The role is not bound: what a node may do depends on the pods
// it runs, which RBAC cannot express. The rules are the outer limit of what the node authorizer allows.
func NodeRules() []rbacv1.PolicyRule {
	update := []string{"update", "patch"}
	return []rbacv1.PolicyRule{
		rule(create(), authentication, "tokenreviews"),
		rule(create(), authorization, "localsubjectaccessreviews", "subjectaccessreviews"),
		rule(read(), core, "services"),
		rule(append(read(), "create"), core, "nodes"),
		rule(update, core, "nodes/status"),
		rule(update, core, "nodes"),
		rule(append(create(), update...), core, "events"),
		rule(read(), core, "pods"),
		rule([]string{"create", "delete"}, core, "pods"),
		rule(update, core, "pods/status"),
		rule(create(), core, "pods/eviction"),
		rule(read(), core, "configmaps", "secrets"),
		rule([]string{"get"}, core, "persistentvolumeclaims", "persistentvolumes"),
		rule([]string{"get"}, core, "endpoints"),
		rule(append(read(), "create"), certificates, "certificatesigningrequests"),
		rule([]string{"get", "create", "update", "patch", "delete"}, coordination, "leases"),
		rule([]string{"get"}, storage, "volumeattachments"),
		rule(create(), core, "serviceaccounts/token"),
		rule([]string{"get"}, core, "serviceaccounts"),
		rule([]string{"get", "update", "patch"}, core, "persistentvolumeclaims/status"),
		rule(read(), storage, "csidrivers"),
		rule([]string{"get", "create", "update", "patch", "delete"}, storage, "csinodes"),
		rule(read(), "node.k8s.io", "runtimeclasses"),
		rule([]string{"get"}, "resource.k8s.io", "resourceclaims"),
	}
}

func create() []string { return []string{"create"} }
func read() []string   { return []string{"get", "list", "watch"} }
func write() []string {
	return []string{"create", "update", "patch", "delete", "deletecollection"}
}

func clusterRole(name string, rules ...rbacv1.PolicyRule) *rbacv1.ClusterRole {
	return &rbacv1.ClusterRole{ObjectMeta: meta(name), Rules: rules}
}

func meta(name string) metav1.ObjectMeta {
	return metav1.ObjectMeta{
		Name:        name,
		Labels:      map[string]string{labelKey: labelValue},
		Annotations: map[string]string{rbacv1.AutoUpdateAnnotationKey: "true"},
	}
}

func metaIn(namespace, name string) metav1.ObjectMeta {
	m := meta(name)
	m.Namespace = namespace
	return m
}

// rule returns a rule with sorted verbs and resources, as Kubernetes stores them.
func rule(verbs []string, group string, resources ...string) rbacv1.PolicyRule {
	return rbacv1.PolicyRule{
		Verbs: slices.Sorted(slices.Values(verbs)), APIGroups: []string{group},
		Resources: slices.Sorted(slices.Values(resources)),
	}
}

func paths(verbs []string, urls ...string) rbacv1.PolicyRule {
	return rbacv1.PolicyRule{Verbs: verbs, NonResourceURLs: slices.Sorted(slices.Values(urls))}
}
