// Package snapshot takes a snapshot of an etcd member and makes the directory of a member from one.
//
// It is apart from package etcd because it depends on the module of etcd's command lines, which a program that only runs a
// member does not need. It does not know what the keys mean.
package snapshot
