// Package registry holds what the packages below it share: one generic strategy, and the making of a store from it.
//
// Each package below is one resource: what its objects default to, which are refused, and how kubectl prints them.
package registry
