// Package version tells which Lanyard this program is, and which Kubernetes it
// speaks, from what the Go toolchain has recorded in the binary.
package version
