//go:build !linux

package datadir

// findOthers finds nothing on other systems.
func findOthers() []Process { return nil }
