//go:build !linux

package process

import (
	"context"
	"errors"
)

// Run returns an error: lanyard exec needs Linux.
func Run(context.Context, Config) (int, error) {
	return 0, errors.New("lanyard exec needs Linux")
}

// Trampoline returns false.
func Trampoline([]string) (exitCode int, isTrampoline bool) { return 0, false }
