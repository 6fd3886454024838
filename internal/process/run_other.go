//go:build !linux

package process

import (
	"context"
	"errors"
)

// Run is for Linux alone.
func Run(context.Context, Config) (int, error) {
	return 0, errors.New("lanyard exec needs Linux")
}

// Trampoline is for Linux alone.
func Trampoline([]string) (exitCode int, ours bool) { return 0, false }
