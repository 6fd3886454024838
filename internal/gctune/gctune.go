// Package gctune sets Go's memory management for a server: the garbage collector takes little CPU under load, and the process
// little resident memory when idle.
package gctune

import (
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
)

const (
	// smallPercent lets the heap grow to three times the live heap before a collection. The live heap of an authority is a few
	// tens of megabytes. With Go's default of 100, collections under load are so frequent that they take a tenth of all CPU.
	smallPercent = 200
	// roomForFree is by how much a heap may grow whatever it contains. A million recorded tokens take hundreds of megabytes
	// without pointers, which a collection does not read, so it costs as little as that of a small heap.
	roomForFree = 80 << 20
)

// Tune sets the garbage collector for a server, unless the environment has GOGC.
func Tune() {
	if os.Getenv("GOGC") != "" {
		return
	}
	debug.SetGCPercent(smallPercent)
	current := smallPercent
	afterCollections(func() {
		want := percent(heap())
		// Setting the percentage stops the program for a moment, so small changes are ignored.
		if change := want - current; change > current/8 || -change > current/8 {
			debug.SetGCPercent(want)
			current = want
		}
	})
}

// percent returns by how much the heap may grow before a collection, in percent of the live heap. scanned is the part of the live
// heap that a collection reads to find pointers. The heap may grow by three times that part, so that collections do not take
// more CPU because the heap is large, and at least by roomForFree.
func percent(live, scanned uint64) int {
	if live == 0 {
		return smallPercent
	}
	room := max(roomForFree, 3*scanned)
	return int(min(smallPercent, room*100/live+1))
}

// heap returns the size of the live heap after the last collection, and how much of it was scanned.
func heap() (live, scanned uint64) {
	samples := []metrics.Sample{{Name: "/gc/heap/live:bytes"}, {Name: "/gc/scan/heap:bytes"}}
	metrics.Read(samples)
	return samples[0].Value.Uint64(), samples[1].Value.Uint64()
}

// afterCollections calls f after each collection, or once after several. Calls do not overlap.
func afterCollections(f func()) {
	marker := new(*byte) // not reachable, so the next collection frees it
	runtime.AddCleanup(marker, func(f func()) {
		f()
		afterCollections(f)
	}, f)
}

// Settle releases memory that only the start needed: its garbage, and the pages of mapped files, such as the program itself. A
// page that is needed again is read from the page cache.
func Settle() {
	debug.FreeOSMemory()
	dropFilePages()
}
