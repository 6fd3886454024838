// Package bootstrap defines the roles and bindings that a new server starts with: the defaults of Kubernetes 1.37 that apply to
// what Lanyard serves, under Kubernetes' names and with Kubernetes' rules, the roles of Lanyard's controllers, and the rules for
// Lanyard's own kinds. The rules include those for kinds that are not served (workloads, networking), so that a role means the same
// once such kinds are served.
//
// The package does not know when or how the objects are stored. Every call returns new objects.
package bootstrap
