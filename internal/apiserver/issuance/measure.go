package issuance

import (
	"errors"
	"unicode/utf8"

	"lanyard.dev/internal/ledger"
)

// The sizes of what is in a batch, about as many bytes as its encoding has.
const (
	revocationSize = 48
	fixedSize      = 96 // of times, identifiers and lengths
)

// measure adds up the bytes of texts, and checks that they can be encoded. Records of several callers are encoded together, so
// each is checked before: one that cannot be encoded must fail no other.
type measure struct {
	bytes int
	err   error
}

var errNotEncodable = errors.New("the record cannot be written to the ledger: it has no ID, or a text that is too long or not UTF-8, or too many texts")

func (m *measure) add(texts ...string) {
	if len(texts) > ledger.MaxList {
		m.err = errNotEncodable
	}
	for _, text := range texts {
		if len(text) > ledger.MaxText || !utf8.ValidString(text) {
			m.err = errNotEncodable
		}
		m.bytes += len(text)
	}
}

func (m *measure) id(id string) {
	if id == "" {
		m.err = errNotEncodable
	}
	m.add(id)
}

func (m *measure) minter(by *ledger.Minter) {
	m.add(by.User, by.UID, by.Credential, by.Address, by.UserAgent)
}

func measureToken(t *ledger.Token) measure {
	m := measure{bytes: fixedSize}
	m.id(t.ID)
	m.add(t.Namespace, t.Account, t.AccountUID, t.Key, t.Bound.Kind, t.Bound.Name, t.Bound.UID, t.Node.Kind, t.Node.Name, t.Node.UID)
	m.add(t.Audiences...)
	m.minter(&t.Minter)
	return m
}

func measureCertificate(c *ledger.Certificate) measure {
	m := measure{bytes: fixedSize}
	m.id(c.ID)
	m.add(c.User, c.SignerName, c.Request)
	m.add(c.Groups...)
	m.minter(&c.Minter)
	return m
}

func measureRevocations(all []ledger.Revocation) measure {
	m := measure{bytes: revocationSize * len(all)}
	for i := range all {
		m.id(all[i].ID)
	}
	return m
}
