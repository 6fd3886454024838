// Package access tells why a policy allows or denies, who it allows, and what
// it allows someone.
//
// Its answers come from an [rbac.Index], the one that authorizes requests, and
// from [rbac.RuleAllows], the test that index is made of: what is explained
// here is what would be decided. It also reads policy objects from manifests,
// without those that an API server would refuse, and what people call resources.
//
// It knows nothing of clusters, of kubeconfigs, nor of how answers are printed.
// Nor does it know of anything that allows beside RBAC, save that the group
// system:masters is never asked about.
package access
