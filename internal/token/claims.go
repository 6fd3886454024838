package token

import (
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/go-jose/go-jose/v4/json"

	"lanyard.dev/internal/account"
)

// Claims is the payload of a token. Times are Unix seconds; 0 means absent. Claims that a Verifier or VerifyOffline returns
// may be shared, so the caller must not change them.
type Claims struct {
	Issuer     string      `json:"iss,omitempty"`
	Subject    string      `json:"sub,omitempty"`
	Audience   Audience    `json:"aud,omitempty"`
	Expiry     int64       `json:"exp,omitempty"`
	IssuedAt   int64       `json:"iat,omitempty"`
	NotBefore  int64       `json:"nbf,omitempty"`
	ID         string      `json:"jti,omitempty"`
	Kubernetes *Kubernetes `json:"kubernetes.io,omitempty"`

	// KeyID is the ID of the key that signed the token. An Issuer and a Verifier set it.
	KeyID string `json:"-"`
}

// Kubernetes is the private claim kubernetes.io. It has no warnafter, which Kubernetes gives to tokens whose lifetime it
// extends: Lanyard extends none.
type Kubernetes struct {
	Namespace      string `json:"namespace,omitempty"`
	ServiceAccount Ref    `json:"serviceaccount"`
	Pod            *Ref   `json:"pod,omitempty"`
	Secret         *Ref   `json:"secret,omitempty"`
	// Node is the object that the token is bound to if Pod is nil. Otherwise it is the pod's node when the token was issued.
	Node *Ref `json:"node,omitempty"`
}

// Ref identifies one object. Another object of the same name has another UID.
type Ref struct {
	Name string `json:"name,omitempty"`
	UID  string `json:"uid,omitempty"`
}

// Audience is the claim aud. It is read from a list or a string (RFC 7519 section 4.1.3) and written as a list.
type Audience []string

// UnmarshalJSON accepts a string or a list of strings.
func (a *Audience) UnmarshalJSON(data []byte) error {
	var list []string
	if err := json.Unmarshal(data, &list); err == nil {
		*a = list
		return nil
	}
	var one string
	if err := json.Unmarshal(data, &one); err != nil {
		return err
	}
	*a = Audience{one}
	return nil
}

// ExpiresAt returns the instant from which the token is refused.
func (c *Claims) ExpiresAt() time.Time { return time.Unix(c.Expiry, 0) }

// maxTime is the last second of the year 9999. RFC 3339 cannot express a later time.
const maxTime = 253402300799

// parseClaims parses a payload. Member names are case-sensitive and must not repeat. Times are whole seconds.
func parseClaims(payload []byte) (*Claims, error) {
	if !utf8.Valid(payload) {
		return nil, fmt.Errorf("%w: claims are not UTF-8", ErrMalformed)
	}
	c := new(Claims)
	// The decoder's error may quote the payload, so it is not returned.
	if json.Unmarshal(payload, c) != nil {
		return nil, fmt.Errorf("%w: claims cannot be read", ErrMalformed)
	}
	for _, t := range []int64{c.Expiry, c.IssuedAt, c.NotBefore} {
		if t < 0 || t > maxTime {
			return nil, fmt.Errorf("%w: a time is out of range", ErrMalformed)
		}
	}
	return c, nil
}

// validate checks that the claims have what every token of this package has.
func (c *Claims) validate() error {
	if c.Expiry == 0 {
		return fmt.Errorf("%w: it has no expiry", ErrMalformed)
	}
	if len(c.Audience) == 0 {
		return fmt.Errorf("%w: it has none", ErrAudience)
	}
	k := c.Kubernetes
	if k == nil {
		return fmt.Errorf("%w: it has no kubernetes.io claim", ErrMalformed)
	}
	if err := k.validate(); err != nil {
		return fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	if c.Subject != subjectOf(k.Namespace, k.ServiceAccount.Name) {
		return ErrSubject
	}
	return nil
}

// validate checks claims that were read or are to be issued. A colon in a name is refused, because two accounts could
// have the same subject.
func (k *Kubernetes) validate() error {
	if k.Namespace == "" || strings.Contains(k.Namespace, ":") {
		return fmt.Errorf("namespace is missing or not a name")
	}
	if k.ServiceAccount.incomplete() || strings.Contains(k.ServiceAccount.Name, ":") {
		return fmt.Errorf("service account name or UID is missing or not a name")
	}
	for _, ref := range []*Ref{k.Pod, k.Secret, k.Node} {
		if ref != nil && ref.incomplete() {
			return fmt.Errorf("a bound object lacks its name or UID")
		}
	}
	if k.Secret != nil && (k.Pod != nil || k.Node != nil) {
		return fmt.Errorf("a token bound to a secret cannot be bound to a pod or node too")
	}
	return nil
}

func (r Ref) incomplete() bool { return r.Name == "" || r.UID == "" }

// subjectOf returns the user name of an account: system:serviceaccount:NAMESPACE:NAME.
func subjectOf(namespace, name string) string {
	return account.Name{Namespace: namespace, Name: name}.User()
}

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

// CredentialID returns the value that identifies a token in user info and audit events. It contains the jti.
func CredentialID(jti string) string { return credentialIDPrefix + jti }

// Identity is the bearer of a verified token. Its slices, map and claims are shared between calls, so the caller must not
// change them.
type Identity struct {
	// Name is the token's subject, UID the account's.
	Name, UID string
	// Namespace and ServiceAccount name the account.
	Namespace, ServiceAccount string
	// Groups are system:serviceaccounts and system:serviceaccounts:NAMESPACE. The authentication layer adds
	// system:authenticated. An append to Groups does not change the shared array.
	Groups []string
	Extra  map[string][]string
	// Audiences are the audiences of the token that the caller requested.
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

// extraOf returns nil if there are no values.
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

// intersect returns the token's audiences that are requested, in the token's order. If all are, it returns the token's own
// list and allocates nothing.
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

// Names returns the kid and the jti of a token, each empty if it cannot be read. They are not verified and may be any text.
// They help to find a token in logs; they do not prove who issued it.
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
