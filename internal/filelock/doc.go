// Package filelock takes exclusive locks on files that end with the process
// that holds them, however it ends.
//
// It knows nothing of what a lock stands for.
package filelock
