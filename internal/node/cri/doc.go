// Package cri runs pods on a container runtime that speaks CRI: containerd or CRI-O.
//
// It knows how a pod, a container and an image are said in CRI, and which of the runtime's pods are this agent's. It does
// not know when to start or stop anything, what a volume holds, or the Kubernetes API.
package cri
