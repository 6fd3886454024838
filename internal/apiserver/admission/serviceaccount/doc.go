// Package serviceaccount gives every new pod its service account and the volume its token will be delivered in.
//
// It asks for no token: delivery is the agent's, once the pod runs.
package serviceaccount
