package token

import "errors"

// MaxSize is the largest token issued or looked at, in bytes. A token of 100 audiences and long names has under 8 KiB.
const MaxSize = 16 << 10

// Why a token is refused. Texts are fit for the client and the log; where Kubernetes has words for the case they are
// used. An error may add detail to its sentinel, so compare with errors.Is.
var (
	// ErrNotJWT: no issuer can be read from it. It may be another kind of bearer token.
	ErrNotJWT = errors.New("not a signed JSON web token in compact form")
	// ErrForeignIssuer: a JWT of an issuer this verifier does not speak for.
	ErrForeignIssuer = errors.New("token is from another issuer")

	ErrTooLarge     = errors.New("token is larger than 16 KiB")
	ErrMalformed    = errors.New("token is malformed")
	ErrAlgorithm    = errors.New("token signature algorithm is not accepted")
	ErrUnknownKey   = errors.New("invalid signature, no keys found")
	ErrBadSignature = errors.New("invalid signature")
	ErrSubject      = errors.New("token subject does not match its service account claims")
	ErrExpired      = errors.New("service account token has expired")
	ErrNotYetValid  = errors.New("service account token is not valid yet")
	ErrAudience     = errors.New("token audiences are invalid for the target audiences")

	// The object has been removed, replaced by another of the same name, or deleted over DeletionGrace ago.
	ErrAccountGone = errors.New("service account token has been invalidated: service account is gone")
	ErrPodGone     = errors.New("service account token has been invalidated: bound pod is gone")
	ErrSecretGone  = errors.New("service account token has been invalidated: bound secret is gone")
	ErrNodeGone    = errors.New("service account token has been invalidated: bound node is gone")

	// ErrAnchorsStale: whether the objects still exist cannot be told now. The token may be good; it is refused.
	ErrAnchorsStale = errors.New("cannot tell whether the objects the token is bound to still exist")
)

// Foreign reports whether err says that the token was never meant for this verifier, so that other authenticators may
// look at it. Every other refusal is of a token that claims to be ours.
func Foreign(err error) bool {
	return errors.Is(err, ErrNotJWT) || errors.Is(err, ErrForeignIssuer)
}
