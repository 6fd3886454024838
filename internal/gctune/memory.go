// Package gctune keeps a server's resident memory small when it idles and its collector cheap when it works.
package gctune

import (
	"os"
	"runtime/debug"
)

// gcPercent lets the heap grow to three times what is live before it is collected. The live heap of an authority is a
// few tens of megabytes, so Go's default of 100 collects many times a second under load: a tenth of all CPU.
const gcPercent = 200

// Tune sets the collector for a server, unless GOGC says otherwise.
func Tune() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
}

// Settle gives back what only the start needed: the garbage of the start, and the pages of mapped files, such as the
// program itself, most of which runs once. What is needed after all is found again in the page cache.
func Settle() {
	debug.FreeOSMemory()
	dropFilePages()
}
