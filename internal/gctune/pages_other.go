//go:build !linux

package gctune

// dropFilePages does nothing on other systems, which account for the pages of mapped files differently.
func dropFilePages() {}
