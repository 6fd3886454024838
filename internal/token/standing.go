package token

import "context"

// CheckStanding returns nil if Verify does not refuse tokens because of the key that signed them or the objects that they are bound to.
// It returns ErrUnknownKey, one of the errors of a missing object, or ErrAnchorsStale. It does not know whether such a token exists. kid
// is the ID of the key, and k has the claims of the token.
func (v *Verifier) CheckStanding(ctx context.Context, kid string, k *Kubernetes) error {
	if len(v.keys.Current().Find(kid)) == 0 {
		return ErrUnknownKey
	}
	return checkAnchors(ctx, v.anchors, k, v.clock.Now())
}
