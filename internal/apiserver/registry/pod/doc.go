// Package pod stores pods: how they are created, updated, bound, evicted and deleted, and how kubectl prints them.
//
// What makes a pod valid is in package podvalidation; logs and sessions of running pods are in package podsession.
package pod
