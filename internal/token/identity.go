package token

import (
	"slices"
	"time"
)

// Keys of Identity.Extra, and the prefix of the credential-id value.
const (
	ExtraCredentialID = "authentication.kubernetes.io/credential-id"
	ExtraPodName      = "authentication.kubernetes.io/pod-name"
	ExtraPodUID       = "authentication.kubernetes.io/pod-uid"
	ExtraNodeName     = "authentication.kubernetes.io/node-name"
	ExtraNodeUID      = "authentication.kubernetes.io/node-uid"

	credentialIDPrefix = "JTI="

	groupAll             = "system:serviceaccounts"
	groupNamespacePrefix = "system:serviceaccounts:"
)

// CredentialID returns the value that names a token in user info and audit events, made of its `jti`.
func CredentialID(jti string) string { return credentialIDPrefix + jti }

// Identity is who holds a verified token. Its slices, map and claims are shared between calls: they must not be changed.
type Identity struct {
	// Name is the token's subject, UID the account's.
	Name, UID string
	// Namespace and ServiceAccount name the account.
	Namespace, ServiceAccount string
	// Groups holds system:serviceaccounts and system:serviceaccounts:NAMESPACE. The group system:authenticated is not
	// this package's to give: the authentication layer adds it. No append to Groups reaches the shared array.
	Groups []string
	Extra  map[string][]string
	// Audiences are those the token has and the caller asked for.
	Audiences []string
	Claims    *Claims
	ExpiresAt time.Time
}

func newIdentity(c *Claims) Identity {
	k := c.Kubernetes
	return Identity{
		Name:           c.Subject,
		UID:            k.ServiceAccount.UID,
		Namespace:      k.Namespace,
		ServiceAccount: k.ServiceAccount.Name,
		Groups:         []string{groupAll, groupNamespacePrefix + k.Namespace},
		Extra:          extraOf(c),
		Claims:         c,
		ExpiresAt:      c.ExpiresAt(),
	}
}

// extraOf is nil if there is nothing to tell.
func extraOf(c *Claims) map[string][]string {
	extra := make(map[string][]string, 5)
	if c.ID != "" {
		extra[ExtraCredentialID] = []string{CredentialID(c.ID)}
	}
	if pod := c.Kubernetes.Pod; pod != nil {
		extra[ExtraPodName], extra[ExtraPodUID] = []string{pod.Name}, []string{pod.UID}
	}
	if node := c.Kubernetes.Node; node != nil {
		extra[ExtraNodeName], extra[ExtraNodeUID] = []string{node.Name}, []string{node.UID}
	}
	if len(extra) == 0 {
		return nil
	}
	return extra
}

// intersect returns the token's audiences that are also requested, in the token's order. If that is all of them, the
// token's own list is returned and nothing allocated.
func intersect(token Audience, requested []string) []string {
	n := 0
	for _, a := range token {
		if slices.Contains(requested, a) {
			n++
		}
	}
	if n == 0 {
		return nil
	}
	if n == len(token) {
		return slices.Clip(token)
	}
	both := make([]string, 0, n)
	for _, a := range token {
		if slices.Contains(requested, a) {
			both = append(both, a)
		}
	}
	return both
}
