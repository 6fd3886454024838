package rbac

import "strconv"

// parseVersion reads a resourceVersion; 0 means that it orders nothing.
func parseVersion(s string) uint64 {
	v, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		return 0
	}
	return v
}

// admit tells whether a change of the object is news, and records nothing but
// that a deletion before it is past.
func (x *Index) admit(ref Ref, resourceVersion string) (version uint64, ok bool) {
	version = parseVersion(resourceVersion)
	if version != 0 {
		if held, ok := x.held(ref); ok && version <= held || version <= x.deleted[ref] {
			return version, false
		}
	}
	delete(x.deleted, ref)
	return version, true
}

// held returns the version of the object in the index.
func (x *Index) held(ref Ref) (version uint64, ok bool) {
	if ref.Kind == Role || ref.Kind == ClusterRole {
		s := x.slots[ref]
		if s == nil || s.role.Load() == nil {
			return 0, false
		}
		return s.version, true
	}
	b := x.bindings[ref]
	if b == nil {
		return 0, false
	}
	return b.version, true
}

// Forget drops the memory of deletions up to resourceVersion. It is for the
// caller that knows no older change can still arrive, because the watches
// that feed the index have all passed it.
func (x *Index) Forget(resourceVersion string) {
	v := parseVersion(resourceVersion)
	x.mu.Lock()
	defer x.mu.Unlock()
	for ref, at := range x.deleted {
		if at <= v {
			delete(x.deleted, ref)
		}
	}
}

// Retain removes the objects of a kind that keep does not name, except those
// changed after resourceVersion: what a fresh list, taken at that version,
// no longer holds. keep is called with the index locked and must not use it.
func (x *Index) Retain(kind Kind, resourceVersion string, keep func(namespace, name string) bool) {
	v := parseVersion(resourceVersion)
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, ref := range x.refs(kind) {
		if !keep(ref.Namespace, ref.Name) {
			x.delete(ref, v)
		}
	}
}

func (x *Index) refs(kind Kind) []Ref {
	var refs []Ref
	for ref, s := range x.slots {
		if ref.Kind == kind && s.role.Load() != nil {
			refs = append(refs, ref)
		}
	}
	for ref := range x.bindings {
		if ref.Kind == kind {
			refs = append(refs, ref)
		}
	}
	return refs
}
