package streams

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"maps"
	"slices"
	"time"

	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
)

// group is the streams that share one check.
type group struct {
	id   groupID
	user string // for the log
	// check returns nil if the streams may go on, an outage.Error if that is unknown, and otherwise the reason of the refusal. If
	// ctx has ended, it answers from memory or returns an error.
	check func(ctx context.Context) error
	// memoryOnly is whether check ignores its context.
	memoryOnly bool

	// These are guarded by the registry's mu.
	streams  map[*stream]struct{}
	accepted time.Time // when a check or a new request was accepted last
	asking   bool      // whether a check is under way that may ask storage
}

// groupID identifies a group. reason is Credential or Rights.
type groupID struct {
	reason Reason
	id     ID
}

var errOtherUser = errors.New("the credential identifies another user than before")

// credentialGroup returns the group of the streams with a credential, which the user presented.
func credentialGroup(presented Presented, who user.Info) *group {
	return &group{
		id: groupID{Credential, presented.ID()}, user: who.GetName(),
		check: func(ctx context.Context) error {
			now, err := presented.User(ctx)
			if err == nil && !sameUser(now, who) {
				err = errOtherUser
			}
			return err
		},
	}
}

func sameUser(a, b user.Info) bool {
	return a.GetName() == b.GetName() && a.GetUID() == b.GetUID() && slices.Equal(a.GetGroups(), b.GetGroups()) &&
		maps.EqualFunc(a.GetExtra(), b.GetExtra(), slices.Equal)
}

// rightGroup returns the group of the streams that depend on a decision.
func (r *Registry) rightGroup(of authorizer.Attributes) *group {
	return &group{
		id: groupID{Rights, attributesID(of)}, user: of.GetUser().GetName(), memoryOnly: true,
		check: func(ctx context.Context) error {
			decision, reason, err := r.Authorizer.Authorize(ctx, of)
			switch {
			case decision == authorizer.DecisionAllow:
				return nil
			case err != nil:
				return err
			}
			return fmt.Errorf("cannot %s %s any more: %s", of.GetVerb(), target(of), reason)
		},
	}
}

func target(of authorizer.Attributes) string {
	if !of.IsResourceRequest() {
		return of.GetPath()
	}
	resource := of.GetResource()
	if of.GetSubresource() != "" {
		resource += "/" + of.GetSubresource()
	}
	return resource
}

// attributesID returns a digest of everything that an authorizer may decide by.
func attributesID(of authorizer.Attributes) ID {
	d := digest{Hash: sha256.New()}
	who := of.GetUser()
	d.add(who.GetName(), who.GetUID())
	d.addList(who.GetGroups())
	extra := who.GetExtra()
	d.addCount(len(extra))
	for _, key := range slices.Sorted(maps.Keys(extra)) {
		d.add(key)
		d.addList(extra[key])
	}
	d.add(fmt.Sprint(of.IsResourceRequest(), of.IsReadOnly()), of.GetVerb(), of.GetAPIGroup(), of.GetAPIVersion(), of.GetResource(),
		of.GetSubresource(), of.GetNamespace(), of.GetName(), of.GetPath())
	fields, err := of.GetFieldSelector()
	d.add(fmt.Sprintf("%q %v", fields, err)) // quoted, since a selector may contain any text
	labels, err := of.GetLabelSelector()
	d.add(fmt.Sprintf("%q %v", labels, err))
	return ID(d.Sum(nil))
}

// digest hashes strings so that different sequences have different digests.
type digest struct{ hash.Hash }

func (d digest) add(texts ...string) {
	for _, text := range texts {
		d.addCount(len(text))
		_, _ = d.Write([]byte(text))
	}
}

func (d digest) addList(texts []string) {
	d.addCount(len(texts))
	d.add(texts...)
}

func (d digest) addCount(n int) {
	var b [8]byte
	binary.BigEndian.PutUint64(b[:], uint64(n))
	_, _ = d.Write(b[:])
}

// join adds a stream to the group g, or to the group with the same id that exists already. A change since the request of the
// stream arrived may have been checked before the stream joined, so it is checked again.
func (r *Registry) join(s *stream, g *group) {
	r.mu.Lock()
	if present := r.groups[g.id]; present != nil {
		g = present
	} else {
		g.streams = map[*stream]struct{}{}
		r.groups[g.id] = g
	}
	if _, member := g.streams[s]; !member {
		g.streams[s] = struct{}{}
		s.groups = append(s.groups, g)
	}
	g.accepted = r.Clock.Now()
	r.mu.Unlock()
	if r.changes.Load() != s.began {
		r.signal()
	}
}

// leave removes a stream from its groups.
func (r *Registry) leave(s *stream) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, g := range s.groups {
		if delete(g.streams, s); len(g.streams) == 0 && r.groups[g.id] == g {
			delete(r.groups, g.id)
		}
	}
}
