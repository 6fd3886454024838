// Package aggregate computes the rules of aggregated ClusterRoles: the union of
// the rules of the ClusterRoles that their selectors match.
//
// Rules come as Kubernetes' controller puts them: selector by selector, for
// each the roles by name, each rule once. A role that is aggregated itself
// stands for what its own selectors match, not for the rules it has at the
// moment. Where no role matches itself by a detour, that is where Kubernetes'
// controller ends too, by copying from role to role. Where roles match each
// other in a circle, copying can go on for ever, and keeps alive what no role
// grants any more; here each holds what the roles outside of the circle give.
//
// The package does not know where roles are kept, nor when they change.
package aggregate
