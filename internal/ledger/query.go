package ledger

import (
	"cmp"
	"slices"
	"strings"
)

// TokenRecord is the record of a token as memory holds it.
type TokenRecord struct {
	Token
	// LastUse is the last known use. It is the zero value if there was none.
	LastUse Use
	// Revision is the revision of storage at which the record became known.
	Revision uint64
}

// CertificateRecord is the record of a certificate as memory holds it.
type CertificateRecord struct {
	Certificate
	LastUse  Use
	Revision uint64
}

// MaxPage is the limit for the records of one page.
const MaxPage = 1000

// Query selects tokens. A record must match each field that is not empty.
type Query struct {
	Namespace, Account, AccountUID string
	MinterUser                     string
	// MinterCredential is the credential ID that the token was requested with: its parent.
	MinterCredential string
	// Bound is the object that the token is bound to. Each part that is not empty must match.
	Bound Object
	// Node is the name of the node of the pod that the token is bound to, or of the node that it is bound to itself.
	Node string
	// Key is the kid of the key that signed the token.
	Key      string
	Audience string
	// After is the position of the last record of the page before. The page starts behind it, whether or not that record
	// still exists.
	After Position
	// Limit is how many records the page has at most. The limit is MaxPage if it is zero or larger.
	Limit int
}

// Position is the place of a token in the order of all pages: by namespace, then UUIDs before other IDs, then by ID.
type Position struct{ Namespace, ID string }

// Position returns the place of the record.
func (t *TokenRecord) Position() Position { return Position{t.Namespace, t.ID} }

// Compare returns a negative number if p is before q, and a positive number if p is behind q.
func (p Position) Compare(q Position) int {
	if c := strings.Compare(p.Namespace, q.Namespace); c != 0 {
		return c
	}
	return compareIDs(p.ID, q.ID)
}

// compareIDs orders the empty ID, then UUIDs, then other IDs.
func compareIDs(a, b string) int {
	class := func(id string) int {
		if id == "" {
			return 0
		}
		if _, ok := parseUUID(id); ok {
			return 1
		}
		return 2
	}
	return cmp.Or(cmp.Compare(class(a), class(b)), strings.Compare(a, b))
}

// nodeKind is the kind of an Object that is a node.
const nodeKind = "Node"

// OnNode returns the node that a token is bound to, directly or by its pod.
func (t *Token) OnNode() Object {
	if t.Node.Name == "" && t.Bound.Kind == nodeKind {
		return t.Bound
	}
	return t.Node
}

// Matches reports whether a token matches the query's fields. After and Limit do not matter.
func (q *Query) Matches(t *Token) bool {
	return is(q.Namespace, t.Namespace) && is(q.Account, t.Account) && is(q.AccountUID, t.AccountUID) &&
		is(q.MinterUser, t.Minter.User) && is(q.MinterCredential, t.Minter.Credential) &&
		is(q.Bound.Kind, t.Bound.Kind) && is(q.Bound.Name, t.Bound.Name) && is(q.Bound.UID, t.Bound.UID) &&
		is(q.Node, t.OnNode().Name) && is(q.Key, t.Key) &&
		(q.Audience == "" || slices.Contains(t.Audiences, q.Audience))
}

func is(wanted, value string) bool { return wanted == "" || wanted == value }

func (q *Query) limit() int {
	if q.Limit <= 0 || q.Limit > MaxPage {
		return MaxPage
	}
	return q.Limit
}

// CertificateQuery selects certificates. A record must match each field that is not empty.
type CertificateQuery struct {
	User, SignerName             string
	MinterUser, MinterCredential string
	// After is the ID of the last record of the page before. Pages are ordered by ID.
	After string
	// Limit is how many records the page has at most. The limit is MaxPage if it is zero or larger.
	Limit int
}

// Matches reports whether a certificate matches the query's fields. After and Limit do not matter.
func (q *CertificateQuery) Matches(c *Certificate) bool {
	return is(q.User, c.User) && is(q.SignerName, c.SignerName) &&
		is(q.MinterUser, c.Minter.User) && is(q.MinterCredential, c.Minter.Credential)
}

func (q *CertificateQuery) limit() int { return (&Query{Limit: q.Limit}).limit() }
