// Package nodetest runs a private containerd for tests, with images made from Go programs.
//
// It downloads nothing: the images contain static programs of this module, and a registry, if a test needs one, is a handler
// in the test's own process. Each containerd has its own directories, socket, bridge and addresses, and leaves nothing
// behind. The package knows CRI, but neither pods nor the agent.
package nodetest
