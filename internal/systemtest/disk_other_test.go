//go:build !linux

package systemtest

func outliveFileLimit() {}
