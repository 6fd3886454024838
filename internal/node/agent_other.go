//go:build !linux

package node

import (
	"context"
	"errors"

	"lanyard.dev/internal/hint"
)

// Run returns an error: the agent runs on Linux alone.
func Run(context.Context, Options) error {
	return hint.New(errors.New("the agent runs on Linux alone"), "this machine can be the authority of agents elsewhere")
}
