// Package mirror tells listeners of every change of a resource, as early as this process can know it.
//
// A write made through this process is told before the write returns to its caller; a write made through another
// replica is told when the storage's watch delivers it. Both ways meet in one feed per resource, which drops what is
// older than what it has told already. This is what lets authentication and authorization decide from memory without
// ever being behind a write that this process has acknowledged.
//
// The package knows no kind, and keeps no objects: listeners remember what they need.
package mirror
