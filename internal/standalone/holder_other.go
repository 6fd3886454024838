//go:build !linux

package standalone

// listenerOf is not implemented on other systems.
func listenerOf(int) string { return "" }
