// Package scheme makes the schemes and codecs by which bytes become the kinds that the server serves.
//
// Every kind has exactly one Go type, the versioned one of k8s.io/api. The library also wants an internal version of each
// served kind; the same Go type is registered as that, so conversion between the two only changes the group and version that the object
// is labelled with. A kind that is a second wire form of another, as events.k8s.io Event is of core Event, has the other's type as its internal form, and is
// converted.
//
// The package knows no kind: the tables of package api say what is registered. It knows no storage and no HTTP.
package scheme
