// Package podannotation names the annotations by which authority and agents understand each other about pods, and says what
// they mean.
//
// A pod with the annotation Process stands for a process that a supervisor runs, `lanyard exec`, and for no containers:
// nobody schedules it, no agent starts or ends it, and it is deleted at once, without a grace period. Its supervisor
// vouches for it with the annotation Lease; the authority removes it once nobody does any more, and its tokens die with
// it.
//
// The package knows no storage, no clock and no HTTP.
package podannotation
