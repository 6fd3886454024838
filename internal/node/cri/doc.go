// Package cri runs pods on a container runtime that speaks CRI: containerd or CRI-O.
//
// It maps pods, containers and images to CRI, and knows which of the runtime's pods belong to this agent. It does not know
// when to start or stop anything, what a volume contains, or the Kubernetes API. Package podsupport declares which fields
// of a pod it maps.
package cri
