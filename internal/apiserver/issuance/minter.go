package issuance

import (
	"context"

	"lanyard.dev/internal/ledger"
)

type minterKey struct{}

// WithMinter returns the context of a request that is made by a minter.
func WithMinter(ctx context.Context, m ledger.Minter) context.Context {
	return context.WithValue(ctx, minterKey{}, m)
}

// MinterFrom returns who makes a request, or the zero value for a call of the server itself.
func MinterFrom(ctx context.Context) ledger.Minter {
	m, _ := ctx.Value(minterKey{}).(ledger.Minter)
	return m
}
