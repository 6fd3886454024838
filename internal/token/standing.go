package token

import (
	"context"
	"errors"
	"time"
)

// recent is the age of a token up to which its objects may be new to this process: more than memory may be behind storage.
const recent = time.Minute

// CheckStanding returns nil if Verify does not refuse tokens because of the key that signed them or the objects that they are bound to.
// It returns ErrUnknownKey, one of the errors of a missing object, or ErrAnchorsStale. It does not know whether such a token exists. kid
// is the ID of the key, issued and k are claims of the token.
func (v *Verifier) CheckStanding(ctx context.Context, kid string, issued time.Time, k *Kubernetes) error {
	if len(v.keys.Current().Find(kid)) == 0 {
		return ErrUnknownKey
	}
	now := v.clock.Now()
	err := checkAnchors(ctx, v.anchors, k, now)
	if err == nil || v.stored == nil || errors.Is(err, ErrAnchorsStale) || now.Sub(issued) > recent {
		return err
	}
	return checkAnchors(ctx, v.stored, k, now)
}
