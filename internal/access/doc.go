// Package access explains a policy: why it allows or denies a request, whom it allows something, and what it allows a
// subject.
//
// The answers come from an [rbac.Index], which also authorizes requests, and from [rbac.RuleAllows], so an explanation
// agrees with the decision. The package also reads policy objects from manifests, without those that an API server would
// refuse, and resolves the names that users write for resources.
//
// It does not know clusters, kubeconfigs, or how answers are printed. Of other authorization than RBAC it knows only that
// the group system:masters is allowed everything.
package access
