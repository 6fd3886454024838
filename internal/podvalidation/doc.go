// Package podvalidation completes and checks pods: their defaults, which pods and which changes of pods are refused, and
// which draw warnings. Messages and field paths are Kubernetes' own, so that clients read the same as from kube-apiserver.
//
// Its functions depend on the given pods alone. They do not know who sends a pod, whether the service account or the node that it
// names exists, or which fields a node implements; admission and package podsupport know that.
package podvalidation
