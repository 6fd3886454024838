package bootstrap

import (
	"maps"
	"slices"

	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// The names of the controllers, Kubernetes' own where Kubernetes has the controller. Kubernetes' scheduler has a role
// system:kube-scheduler with rights that this one does not use, so this one has a name of its own.
const (
	CertificateController            = "certificate-controller"
	ClusterRoleAggregationController = "clusterrole-aggregation-controller"
	NamespaceController              = "namespace-controller"
	NodeController                   = "node-controller"
	PodGarbageCollector              = "pod-garbage-collector"
	RootCAPublisher                  = "root-ca-cert-publisher"
	Scheduler                        = "scheduler"
	ServiceAccountController         = "service-account-controller"
	ServiceAccountTokenController    = "service-account-token-controller"
	SigningKeyController             = "signing-key-controller"
	TokenCleaner                     = "token-cleaner"

	// SchedulerLease is the Lease in kube-system that elects the scheduler that assigns host ports.
	SchedulerLease = "lanyard-scheduler"
	// RootCAConfigMap is the ConfigMap, in every namespace, that holds the CA of the API server.
	RootCAConfigMap = "kube-root-ca.crt"
	// NodesCAConfigMap is the ConfigMap, in kube-public, that holds the CA of the certificates that nodes serve with.
	NodesCAConfigMap = "kubelet-serving-ca"
	// DefaultServiceAccount is the service account that every namespace has.
	DefaultServiceAccount = "default"

	controllerPrefix = "system:controller:"
)

// ControllerUser returns the user name of a controller. Each controller has a role and a binding of the same name.
//
// Controllers are users, while Kubernetes runs each as a service account in kube-system. A token can be issued for a
// service account, so every user who may create tokens or pods in kube-system has the rights of Kubernetes' controllers.
// No token can be issued for a user; only the server's own client acts as one of these.
func ControllerUser(name string) string { return controllerPrefix + name }

// Controllers returns the names of all controllers, sorted.
func Controllers() []string {
	all := map[string]bool{}
	for name := range controllerRules() {
		all[name] = true
	}
	for name := range systemRules() {
		all[name] = true
	}
	return slices.Sorted(maps.Keys(all))
}

// controllerRules are the permissions of each controller in every namespace. They allow what the controller does and nothing
// else.
func controllerRules() map[string][]rbacv1.PolicyRule {
	get, update := []string{"get"}, []string{"update"}
	events := rule([]string{"create", "patch"}, core, "events")
	return map[string][]rbacv1.PolicyRule{
		CertificateController: {
			rule([]string{"get", "list", "delete"}, certificates, "certificatesigningrequests"),
			rule(update, certificates, "certificatesigningrequests/approval", "certificatesigningrequests/status"),
			named(rule([]string{"approve"}, certificates, "signers"), "kubernetes.io/kube-apiserver-client-kubelet", "kubernetes.io/kubelet-serving"),
			named(rule([]string{"sign"}, certificates, "signers"),
				"kubernetes.io/kube-apiserver-client", "kubernetes.io/kube-apiserver-client-kubelet", "kubernetes.io/kubelet-serving"),
		},
		// The rules that it writes into a role are the rules of other roles. Whether their authors had these permissions, or this
		// verb, was checked when they wrote those roles.
		ClusterRoleAggregationController: {rule([]string{"get", "update", "escalate"}, rbacv1.GroupName, "clusterroles")},
		NamespaceController: {
			rule(get, core, "namespaces"),
			rule(update, core, "namespaces/finalize", "namespaces/status"),
			rule([]string{"list", "deletecollection"}, "*", "*"), // the kinds that a namespace may hold are not known here
		},
		NodeController: {
			rule([]string{"get", "update"}, core, "nodes"),
			rule(get, core, "pods"),
			rule(update, core, "nodes/status", "pods/status"),
			rule(get, coordination, "leases"),
			events,
		},
		PodGarbageCollector: {
			rule([]string{"get", "delete"}, core, "pods"),
			rule(get, core, "nodes"),
			events,
		},
		RootCAPublisher: {
			rule(create(), core, "configmaps"),
			named(rule([]string{"get", "update", "delete"}, core, "configmaps"), NodesCAConfigMap, RootCAConfigMap),
		},
		Scheduler: {
			rule([]string{"get", "list"}, core, "pods"),
			rule(update, core, "pods/status"),
			rule(create(), core, "pods/binding"),
			events,
		},
		ServiceAccountController: {
			rule(get, core, "namespaces"),
			rule(create(), core, "serviceaccounts"),
			named(rule([]string{"get", "delete"}, core, "serviceaccounts"), DefaultServiceAccount),
		},
		ServiceAccountTokenController: {
			rule([]string{"get", "update", "delete"}, core, "secrets"),
			rule(get, core, "serviceaccounts"),
		},
		// The keys themselves are not changed through the API.
		SigningKeyController: {events},
	}
}

// systemRules are what controllers may do in kube-system alone.
func systemRules() map[string][]rbacv1.PolicyRule {
	return map[string][]rbacv1.PolicyRule{
		Scheduler: {
			rule(create(), coordination, "leases"),
			named(rule([]string{"get", "update"}, coordination, "leases"), SchedulerLease),
		},
		TokenCleaner: {rule([]string{"get", "delete"}, core, "secrets")},
	}
}

func named(r rbacv1.PolicyRule, names ...string) rbacv1.PolicyRule {
	r.ResourceNames = slices.Sorted(slices.Values(names))
	return r
}

// ControllerRoles returns the ClusterRoles of Lanyard's controllers, sorted by name.
func ControllerRoles() []*rbacv1.ClusterRole {
	var roles []*rbacv1.ClusterRole
	for _, name := range slices.Sorted(maps.Keys(controllerRules())) {
		roles = append(roles, clusterRole(ControllerUser(name), controllerRules()[name]...))
	}
	return roles
}

// ControllerRoleBindings returns the ClusterRoleBindings of Lanyard's controllers, sorted by name, each named after the
// ClusterRole it binds and the user it binds it to.
func ControllerRoleBindings() []*rbacv1.ClusterRoleBinding {
	var bindings []*rbacv1.ClusterRoleBinding
	for _, name := range slices.Sorted(maps.Keys(controllerRules())) {
		bindings = append(bindings, bindUsers(ControllerUser(name), ControllerUser(name)))
	}
	return bindings
}

func controllerSystemRoles() []*rbacv1.Role {
	var roles []*rbacv1.Role
	for name, rules := range systemRules() {
		roles = append(roles, &rbacv1.Role{ObjectMeta: metaIn(metav1.NamespaceSystem, ControllerUser(name)), Rules: rules})
	}
	return roles
}

func controllerSystemBindings() []*rbacv1.RoleBinding {
	var bindings []*rbacv1.RoleBinding
	for name := range systemRules() {
		user := ControllerUser(name)
		bindings = append(bindings, bindIn(metav1.NamespaceSystem, user, rbacv1.UserKind, user))
	}
	return bindings
}
