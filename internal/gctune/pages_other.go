//go:build !linux

package gctune

// dropFilePages does nothing here: other systems count the pages of files otherwise.
func dropFilePages() {}
