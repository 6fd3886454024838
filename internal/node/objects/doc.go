// Package objects keeps the secrets, config maps and service accounts that the pods of a node name. It watches each object
// alone, because a node may read single objects but may not list them.
//
// Pods that name the same object share one watch, which ends with the last of them. Once an object has been seen, the Store
// returns it from memory, even while the authority cannot be reached. The package does not know what pods do with the
// objects, and never writes one.
package objects
