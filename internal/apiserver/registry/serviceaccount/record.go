package serviceaccount

import (
	"crypto/sha256"
	"time"

	"lanyard.dev/internal/ledger"
	"lanyard.dev/internal/token"
)

// recordOf returns the record of a token with these claims that a minter requested.
func recordOf(text string, c *token.Claims, minter ledger.Minter) ledger.Token {
	k, sum := c.Kubernetes, sha256.Sum256([]byte(text))
	made := ledger.Token{
		ID: c.ID, Namespace: k.Namespace, Account: k.ServiceAccount.Name, AccountUID: k.ServiceAccount.UID, Audiences: c.Audience,
		Issued: time.Unix(c.IssuedAt, 0), Expires: c.ExpiresAt(), Key: c.KeyID, Digest: ledger.Digest(sum[:]), Minter: minter,
	}
	switch {
	case k.Pod != nil:
		made.Bound = object("Pod", k.Pod)
		if k.Node != nil {
			made.Node = object("Node", k.Node)
		}
	case k.Secret != nil:
		made.Bound = object("Secret", k.Secret)
	case k.Node != nil:
		made.Bound = object("Node", k.Node)
	}
	return made
}

func object(kind string, r *token.Ref) ledger.Object {
	return ledger.Object{Kind: kind, Name: r.Name, UID: r.UID}
}
