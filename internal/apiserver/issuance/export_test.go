package issuance

// What external tests use of the package.
var ErrEnded = errEnded

const (
	MaxGroups = maxGroups
	MaxBytes  = maxBytes
)
