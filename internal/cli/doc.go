// Package cli is the command line of lanyard: one file per command, each with
// an options struct and its addFlags, complete, validate and run.
//
// Results go to standard output, words to standard error. It knows nothing of
// how the commands do their work.
package cli
