// Package lanyardtest starts a real authority inside a Go test: the same API, etcd, admission, RBAC and tokens as
// `lanyard up`, in this process and ready in well under a second.
//
//	func TestController(t *testing.T) {
//		authority := lanyardtest.Start(t)
//		namespace := authority.Namespace(t)
//		authority.CreateServiceAccount(t, namespace, "controller")
//		authority.Grant(t, namespace, "controller", rbacv1.PolicyRule{
//			APIGroups: []string{""}, Resources: []string{"configmaps"}, Verbs: []string{"get", "list", "watch"},
//		})
//		run(authority.As(t, namespace, "controller")) // what the code under test is given
//	}
//
// Each test may start its own, in parallel with others; one that several tests share keeps them apart by Namespace.
// Nothing is left behind: the authority ends with the test that started it, its directory with it, and `lanyard
// kubectl` on the same machine does not find it.
//
// The libraries that the authority is made of log through klog, to standard error unless the test binary says
// otherwise, as with klog.SetLogger in its TestMain.
//
// Pods are admitted and stored, not run. The package knows nothing of the code under test and fakes nothing: where a
// test needs a failure, it brings it about, as by deleting the account.
package lanyardtest
