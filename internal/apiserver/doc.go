// Package apiserver assembles the authority: New turns Options into a server of the Kubernetes API that identity needs.
//
// New reads as a recipe: keys, configuration, storage, policy, identity, admission, handler, controllers. Each part is a value that a
// constructor makes from the parts before it, in a file of its name. The package only connects the packages below it: it validates no
// object, issues no token and matches no rule.
package apiserver
