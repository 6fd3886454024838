package api

import (
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

// policy has no resources. An Eviction is posted to a subresource of a pod.
func policy() Group {
	return Group{Name: policyv1.GroupName, Versions: []Version{{Name: "v1", Types: []runtime.Object{&policyv1.Eviction{}}}}}
}
