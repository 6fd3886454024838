// Package scheme lists the kinds the authority serves and how bytes become those kinds.
//
// Every kind has exactly one Go type, the versioned one of k8s.io/api. The library wants an internal version of each
// served kind besides; the same Go type is registered as that too, so conversion between the two is only a change
// of label. The one exception is events.k8s.io Event, which is a second wire form of core Event and is converted.
//
// The package knows no storage, no defaults of single kinds beyond calling them, and no HTTP.
package scheme
