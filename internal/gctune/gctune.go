// Package gctune sets Go's memory management for a server: the garbage collector takes little CPU under load, and the process
// little resident memory when idle.
package gctune

import (
	"os"
	"runtime/debug"
)

// gcPercent lets the heap grow to three times the live heap before a collection. The live heap of an authority is a few tens
// of megabytes. With Go's default of 100, collections under load are so frequent that they take a tenth of all CPU.
const gcPercent = 200

// Tune sets the garbage collector for a server, unless the environment has GOGC.
func Tune() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
}

// Settle releases memory that only the start needed: its garbage, and the pages of mapped files, such as the program itself. A
// page that is needed again is read from the page cache.
func Settle() {
	debug.FreeOSMemory()
	dropFilePages()
}
