package issued

import (
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation"

	identity "lanyard.dev/apis/identity/v1alpha1"
	"lanyard.dev/internal/ledger"
)

// kind is how the records of type R, ledger.TokenRecord or ledger.CertificateRecord, are served as objects of one kind.
type kind[R any] struct {
	resource  schema.GroupResource
	newObject func() runtime.Object
	newList   func() runtime.Object
	// object returns the object of a record.
	object func(*R, identity.Phase) runtime.Object
	// list returns a list of objects that object returned.
	list func([]runtime.Object) runtime.Object

	// get returns the record with an ID.
	get func(m *ledger.Memory, id string) (R, bool)
	// page returns the records that a query selects behind a position, at most limit of them. more is whether there are further
	// ones.
	page func(m *ledger.Memory, q *query, after string, limit int) (page []R, more bool)
	// changed returns the record of an event, or nil if the event is about another kind.
	changed func(*ledger.Event) *R

	// position is the place of a record in the order of pages.
	position   func(*R) string
	id         func(*R) string
	namespace  func(*R) string
	revision   func(*R) *uint64
	revocation func(*R) ledger.Revocation
	labels     func(*R) labels.Set
	// labelFields are the fields with the values of labels.
	labelFields map[string]string
	// fields are the fields that a field selector may name, each with its values. A list has several values.
	fields map[string]func(*R) []string
	// index adds to a query that a field has a value. A field that no query can name is not among its keys.
	index map[string]func(*query, string)
}

// query is what the ledger can select by. The records of a kind are selected by one of both, or by the ID alone.
type query struct {
	id           string
	tokens       ledger.Query
	certificates ledger.CertificateQuery
}

// phaseField is the field that is not a part of the record.
const phaseField = "status.phase"

// one returns the values of a field that has one value at most.
func one(value string) []string {
	if value == "" {
		return nil
	}
	return []string{value}
}

// useOf returns the last use for a status, or nil if there was none.
func useOf(use ledger.Use) *identity.Use {
	if use.At.IsZero() {
		return nil
	}
	return &identity.Use{Time: metav1.NewTime(use.At), Address: use.Address}
}

func minterOf(m ledger.Minter) identity.Minter {
	return identity.Minter{Username: m.User, UID: m.UID, CredentialID: m.Credential, Address: m.Address, UserAgent: m.UserAgent}
}

// parents returns the credential ID of a minter and the name of the object with the record of that credential. A field selector may
// name either: "=" in a value has to be escaped there.
func parents(m ledger.Minter) []string {
	if _, name, ok := strings.Cut(m.Credential, "="); ok {
		return []string{m.Credential, name}
	}
	return one(m.Credential)
}

// digestLength is the length of the name of an IssuedCertificate.
const digestLength = 64

// credentialID returns the credential ID for a name of an IssuedToken or IssuedCertificate. It returns a credential ID unchanged.
func credentialID(name string) string {
	switch {
	case strings.Contains(name, "="):
		return name
	case len(name) == digestLength:
		return (&ledger.Certificate{ID: name}).CredentialID()
	}
	return (&ledger.Token{ID: name}).CredentialID()
}

// addLabel adds a label, if the value can be the value of a label.
func addLabel(set labels.Set, name, value string) {
	if value != "" && len(validation.IsValidLabelValue(value)) == 0 {
		set[name] = value
	}
}
