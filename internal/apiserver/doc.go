// Package apiserver assembles the authority: it turns Options into a server of the Kubernetes API that identity needs.
//
// It wires what the packages below it do and does none of it: no kind is validated, no token issued, no rule matched
// here.
package apiserver
