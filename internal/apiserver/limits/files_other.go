//go:build !unix

package limits

func openFiles() int { return unlimited }
