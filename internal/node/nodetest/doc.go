// Package nodetest runs a private containerd for tests, with images made from Go programs.
//
// Nothing is fetched: the images hold static programs of this module, and a registry, where a test wants one, is a
// handler in the test's own process. Each containerd has its directories, socket, bridge and addresses to itself and
// leaves nothing behind. The package knows CRI, but neither pods nor the agent.
package nodetest
