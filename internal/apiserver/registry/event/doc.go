// Package event serves events, which two API groups show in two forms: what is refused, the conversion between the
// forms, their table, their storage.
//
// An event is stored as core/v1 has it. The package does not know who reports events, nor repeats or counts them.
package event
