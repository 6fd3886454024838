package api

import (
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

// policy has no resource of its own: an Eviction is posted to a part of a pod.
func policy() Group {
	return Group{Name: policyv1.GroupName, Versions: []Version{{Name: "v1", Types: []runtime.Object{&policyv1.Eviction{}}}}}
}
