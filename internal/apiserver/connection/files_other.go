//go:build !unix

package connection

func openFiles() int { return unlimited }
