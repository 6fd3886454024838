package ledger

import (
	"cmp"
	"slices"
	"strings"
)

// candidates returns the tokens that each field of the filter selects, if an index has them.
func (f *filter) candidates() []candidates {
	var found []candidates
	x := &f.index
	if f.account != 0 || f.accountUID != 0 {
		found = append(found, x.ofGroups(f.accounts(), x.eachOfAccount))
	}
	if f.name != nil || f.uid != nil {
		found = append(found, x.ofSubjects(f.bound()))
	}
	if f.node != 0 {
		found = append(found, x.ofGroups(x.groupsNamed(ofNode, f.node, 0), x.eachOfNode))
	}
	for _, c := range []struct {
		group uint32
		each  func(group uint32, visit func(handle uint32))
	}{
		{f.user, x.eachOfUser}, {f.credential, x.eachOfCredential}, {f.key, x.eachOfKey}, {f.audience, x.eachOfAudience},
	} {
		if c.group != 0 {
			found = append(found, x.ofGroups([]uint32{c.group}, c.each))
		}
	}
	return found
}

// groupsNamed returns the groups with two strings, whatever the third one is.
func (x *index) groupsNamed(kind groupKind, a, b uint32) (found []uint32) {
	x.groupsByName.find(nameHash(kind, x.hashText(a), x.hashText(b)), func(handle uint32) bool {
		if g := x.groups.at(handle); g.kind == kind && g.a == a && (kind == ofNode || g.b == b) {
			found = append(found, handle)
		}
		return false
	})
	return found
}

// accounts returns the groups of the accounts with a name, a UID, or both. It does not compare all fields.
func (f *filter) accounts() (found []uint32) {
	x := &f.index
	if f.accountUID != 0 {
		x.accountsByUID.find(uint32(x.hashText(f.accountUID)), func(handle uint32) bool {
			if x.groups.at(handle).c == f.accountUID {
				found = append(found, handle)
			}
			return false
		})
		return found
	}
	if f.namespace != 0 {
		return x.groupsNamed(ofAccount, f.namespace, f.account)
	}
	for _, n := range f.namespaces.sorted {
		found = append(found, x.groupsNamed(ofAccount, n.text, f.account)...)
	}
	return found
}

// bound returns the subjects of the objects with a UID or a name.
func (f *filter) bound() (found []uint32) {
	x := &f.index
	if f.uid != nil {
		x.subjectsByUID.find(x.uidHashAgain(f.uid), func(handle uint32) bool {
			if x.subjects.at(handle).uid == *f.uid {
				found = append(found, handle)
			}
			return false
		})
		return found
	}
	hash := x.hashName(f.name)
	for _, n := range f.namespaces.sorted {
		if !isHandle(f.namespace, n.text) {
			continue
		}
		x.subjectsByName.find(combine(x.hashText(n.text), hash), func(handle uint32) bool {
			if s := x.subjects.at(handle); s.name == *f.name && x.groups.at(s.account).a == n.text {
				found = append(found, handle)
			}
			return false
		})
	}
	return found
}

func (x *index) ofGroups(groups []uint32, each func(group uint32, visit func(handle uint32))) candidates {
	c := candidates{each: func(visit func(handle uint32)) {
		for _, group := range groups {
			each(group, visit)
		}
	}}
	for _, group := range groups {
		c.count += int(x.groups.at(group).tokenCount)
	}
	return c
}

func (x *index) ofSubjects(subjects []uint32) candidates {
	c := candidates{each: func(visit func(handle uint32)) {
		for _, s := range subjects {
			eachIn(x.subjects.at(s).tokens, x.tokenBySubject, visit)
		}
	}}
	for _, s := range subjects {
		c.count += int(x.subjects.at(s).tokenCount)
	}
	return c
}

// eachIn visits the values of a list.
func eachIn(head uint32, links func(uint32) *link, visit func(handle uint32)) {
	for ; head != 0; head = links(head).next {
		visit(head)
	}
}

func (x *index) eachOfAccount(group uint32, visit func(handle uint32)) {
	eachIn(x.groups.at(group).members, x.subjectByAccount, func(s uint32) { eachIn(x.subjects.at(s).tokens, x.tokenBySubject, visit) })
}

func (x *index) eachOfNode(group uint32, visit func(handle uint32)) {
	eachIn(x.groups.at(group).members, x.subjectByNode, func(s uint32) { eachIn(x.subjects.at(s).tokens, x.tokenBySubject, visit) })
}

func (x *index) eachOfUser(group uint32, visit func(handle uint32)) {
	eachIn(x.groups.at(group).members, x.minterByUser, func(n uint32) { eachIn(x.minters.at(n).tokens, x.tokenByMinter, visit) })
}

func (x *index) eachOfCredential(group uint32, visit func(handle uint32)) {
	eachIn(x.groups.at(group).members, x.minterByCredential, func(n uint32) { eachIn(x.minters.at(n).tokens, x.tokenByMinter, visit) })
}

func (x *index) eachOfKey(group uint32, visit func(handle uint32)) {
	eachIn(x.groups.at(group).members, x.stampByKey, func(s uint32) { eachIn(x.stamps.at(s).tokens, x.tokenByStamp, visit) })
}

func (x *index) eachOfAudience(group uint32, visit func(handle uint32)) {
	eachIn(x.groups.at(group).members, x.edgeByAudience, func(e uint32) {
		eachIn(x.stamps.at(x.edges.at(e).stamp).tokens, x.tokenByStamp, visit)
	})
}

// SelectCertificates returns the page of certificates that a query selects, ordered by ID, and whether there are more.
func (m *Memory) SelectCertificates(q CertificateQuery) (page []CertificateRecord, more bool) {
	page = m.certificatesWhere(func(c *Certificate) bool { return q.After < c.ID && q.Matches(c) })
	limit := min(len(page), q.limit())
	return page[:limit], limit < len(page)
}

// certificatesWhere returns the certificates that satisfy a condition, ordered by ID.
func (m *Memory) certificatesWhere(is func(*Certificate) bool) (found []CertificateRecord) {
	p := &m.plain
	p.mu.RLock()
	defer p.mu.RUnlock()
	for id, c := range p.certificates {
		if is(&c.Certificate) {
			record := *c
			record.LastUse = p.use(id)
			found = append(found, record)
		}
	}
	slices.SortFunc(found, func(a, b CertificateRecord) int { return strings.Compare(a.ID, b.ID) })
	return found
}

// Children returns the records of what was issued to requests that were authenticated with a credential, and if
// transitive is set, also of what was issued with those. The argument is a credential ID such as "JTI=...". Tokens come in
// the order of their positions, certificates by ID. A credential in between that was revoked or has expired has no record,
// so what was issued with it is not found.
func (m *Memory) Children(credential string, transitive bool) (tokens []TokenRecord, certificates []CertificateRecord) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	byParent := map[string][]CertificateRecord{}
	for _, c := range m.certificatesWhere(func(c *Certificate) bool { return c.Minter.Credential != "" }) {
		byParent[c.Minter.Credential] = append(byParent[c.Minter.Credential], c)
	}
	r := m.newReader()
	seen := map[string]bool{}
	for parents := []string{credential}; len(parents) > 0 && (transitive || len(seen) == 0); parents = parents[1:] {
		if parents[0] == "" || seen[parents[0]] {
			continue
		}
		seen[parents[0]] = true
		if group := m.index.lookupGroup(ofCredential, parents[0]); group != 0 {
			m.index.eachOfCredential(group, func(handle uint32) {
				token := r.token(handle)
				tokens, parents = append(tokens, token), append(parents, token.CredentialID())
			})
		}
		for _, c := range byParent[parents[0]] {
			certificates, parents = append(certificates, c), append(parents, c.CredentialID())
		}
	}
	slices.SortFunc(tokens, func(a, b TokenRecord) int { return a.Position().Compare(b.Position()) })
	slices.SortFunc(certificates, func(a, b CertificateRecord) int { return cmp.Compare(a.ID, b.ID) })
	return tokens, certificates
}
