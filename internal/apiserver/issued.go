package apiserver

import (
	"context"
	"errors"
	"fmt"

	"lanyard.dev/internal/apiserver/issuance"
	"lanyard.dev/internal/apiserver/registry/issued"
	"lanyard.dev/internal/ledger"
	"lanyard.dev/internal/nodeaccess"
	"lanyard.dev/internal/token"
)

// issuedTokens returns what the storage of IssuedTokens depends on. A token is Invalid if the verifier refuses it although it has a
// record.
func issuedTokens(journal *issuance.Journal, verifier *token.Verifier) issued.Config[ledger.TokenRecord] {
	return issued.Config[ledger.TokenRecord]{
		Memory: journal.Memory, Settle: journal.Settle, Revoke: journal.Revoke,
		Check: func(ctx context.Context, t *ledger.TokenRecord) error {
			err := verifier.CheckStanding(ctx, t.Key, t.Issued, claimsOf(&t.Token))
			if err == nil || errors.Is(err, token.ErrAnchorsStale) {
				return err
			}
			return fmt.Errorf("%w: %w", issued.ErrRefused, err)
		},
	}
}

// claimsOf returns the claims about objects that a token has, as its record states them.
func claimsOf(t *ledger.Token) *token.Kubernetes {
	claims := &token.Kubernetes{Namespace: t.Namespace, ServiceAccount: token.Ref{Name: t.Account, UID: t.AccountUID}}
	ref := func(o ledger.Object) *token.Ref {
		if o.Name == "" {
			return nil
		}
		return &token.Ref{Name: o.Name, UID: o.UID}
	}
	claims.Node = ref(t.Node)
	switch t.Bound.Kind {
	case "Pod":
		claims.Pod = ref(t.Bound)
	case "Secret":
		claims.Secret = ref(t.Bound)
	case "Node":
		claims.Node = ref(t.Bound)
	}
	return claims
}

// issuedCertificates returns what the storage of IssuedCertificates depends on. A certificate is Invalid if its node was evicted.
func issuedCertificates(journal *issuance.Journal, evictions *nodeaccess.Evictions) issued.Config[ledger.CertificateRecord] {
	return issued.Config[ledger.CertificateRecord]{
		Memory: journal.Memory, Settle: journal.Settle, Revoke: journal.Revoke,
		Check: func(_ context.Context, c *ledger.CertificateRecord) error {
			node, ok := nodeaccess.Identify(c.User, c.Groups)
			if !ok {
				return nil
			}
			err := evictions.Admits(node, c.Issued)
			if errors.Is(err, nodeaccess.ErrEvicted) {
				return fmt.Errorf("%w: %w", issued.ErrRefused, err)
			}
			return err
		},
	}
}
