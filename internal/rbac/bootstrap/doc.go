// Package bootstrap defines the roles and bindings a new authority starts
// with: those of Kubernetes 1.37 that apply to what Lanyard serves, under
// Kubernetes' names and with Kubernetes' rules, those for kinds that are not
// served (workloads, networking) included, so that the roles mean the same
// once such kinds exist.
//
// It knows nothing of when or how they are stored and kept. Every call returns
// fresh objects.
package bootstrap
