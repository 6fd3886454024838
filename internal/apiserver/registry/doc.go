// Package registry makes the store of a resource from one generic strategy, and prints objects as tables. The packages
// below it use it.
//
// Each package below it is one resource: the defaults of its objects, which objects are refused, and how kubectl prints
// them.
package registry
