// Package anchor keeps in memory the objects that bound the lives of tokens: service accounts, pods, secrets and nodes.
//
// The token verifier looks them up here. The feeds of package mirror fill the memory, so it is never behind a write that
// this process has acknowledged. The package knows neither tokens nor HTTP.
package anchor
