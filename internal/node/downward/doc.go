// Package downward answers what a pod asks about itself: fields and resources, for volumes and environments alike.
//
// It knows neither; it is given the pod with the status it is to have.
package downward
