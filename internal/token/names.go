package token

import "github.com/go-jose/go-jose/v4/json"

// Names returns the `kid` and the `jti` of a token, each empty if it cannot be read. Nothing has been verified: they say
// what to look for, not who the token is from, and may be any text.
func Names(token string) (kid, jti string) {
	parts, err := split(token)
	if err != nil {
		return "", ""
	}
	if h, err := parts.parseHeader(); err == nil {
		kid = h.KeyID
	}
	var claims struct {
		ID string `json:"jti"`
	}
	if payload, err := parts.decodePayload(); err == nil && json.Unmarshal(payload, &claims) == nil {
		jti = claims.ID
	}
	return kid, jti
}
