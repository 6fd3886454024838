// Package cli implements the command line of lanyard. A command has a file of its own, however short, with an options struct
// and its methods addFlags, validate and run. Files without a command's name hold what several commands share.
//
// Commands write results to standard output, and messages to standard error. The work itself is in other packages.
package cli
