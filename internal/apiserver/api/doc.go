// Package api declares what the server serves: one table per API group, in a file named after the group. An entry of a
// table declares everything about a resource that is not behaviour: its Go types, names, scope, columns, subresources,
// and whether listeners learn of a change before the write returns. The scheme, the stores, discovery, the feeds and
// the emptying of deleted namespaces follow from the tables.
//
// Behaviour is in the packages below registry: defaults, validation, and the rows of tables. The package does not know
// how requests reach a resource, or which other parts of the server use the stores.
package api
