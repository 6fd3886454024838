// Package api declares what the server serves: one table per API group, in a file of the group's name. An entry of a table says everything
// about a resource that is not behaviour: its Go types, names, scope, columns, parts, and whether listeners learn of a change before
// the write is answered. The scheme, the stores, discovery, the feeds and the collection of a deleted namespace follow from the tables.
//
// Behaviour is in the packages below registry: defaults, validation, and what a row of a table shows. The package does not know how
// requests reach a resource, nor who uses the stores besides.
package api
