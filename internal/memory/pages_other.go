//go:build !linux

package memory

// dropProgramPages does nothing here: other systems count a program's pages otherwise.
func dropProgramPages() {}
