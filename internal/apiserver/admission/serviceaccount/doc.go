// Package serviceaccount sets the service account of every new pod, and adds the volume of its token.
//
// It issues no token. The agent requests one when it starts the pod.
package serviceaccount
