// Package lanyardtest starts a real authority inside a Go test. It serves the same API as `lanyard up`, with the same etcd,
// admission, RBAC and tokens, in the process of the test. A start takes less than half a second on most machines.
//
//	func TestController(t *testing.T) {
//		authority := lanyardtest.Start(t)
//		namespace := authority.Namespace(t)
//		authority.CreateServiceAccount(t, namespace, "controller")
//		authority.Grant(t, namespace, "controller", rbacv1.PolicyRule{
//			APIGroups: []string{""}, Resources: []string{"configmaps"}, Verbs: []string{"get", "list", "watch"},
//		})
//		run(authority.As(t, namespace, "controller")) // the code under test
//	}
//
// Each test may start an authority of its own, in parallel with others. Tests that share one can separate their objects with
// Namespace. An authority ends with the test that started it, and its data directory is removed, unless Options names it.
// `lanyard kubectl` on the same machine does not find it.
//
// Pods are admitted and stored, but do not run. Nothing is simulated: to test a failure, cause it, for example by deleting the
// account or with Stop.
//
// The Kubernetes libraries log to standard error with klog. A test binary can change that in TestMain, as with klog.SetLogger.
package lanyardtest
