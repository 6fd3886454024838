// Package apiserver assembles the authority: New makes a server from Options. The server has the part of the Kubernetes API that
// service accounts and their workloads need.
//
// New makes the parts in this order: keys and configuration, storage, policy, identity, admission, handler,
// controllers. Each part is a value that a constructor makes from earlier parts, in a file of its name. Some of these
// files are short because the work is done in the packages below: this package validates no object, issues no token and
// matches no rule.
package apiserver
