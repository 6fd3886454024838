//go:build !linux

package node

import (
	"context"
	"errors"
)

// Run returns an error: the agent runs on Linux alone.
func Run(context.Context, Options) error {
	return &Error{Err: errors.New("the agent runs on Linux alone"), Next: "this machine can be the authority of agents elsewhere"}
}
