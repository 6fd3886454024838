// Package bootstraptoken makes, parses and verifies bootstrap tokens: short-lived credentials with which a machine joins as
// a node.
//
// A token is "ID.SECRET", with six and sixteen characters of a-z and 0-9. It is stored in the Secret bootstrap-token-ID in
// kube-system, of type bootstrap.kubernetes.io/token, in Kubernetes' format. Memory keeps only the hash of the secret part.
// The package does not know HTTP or storage.
package bootstraptoken

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"strings"
	"sync"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/utils/clock"
)

const (
	idLength     = 6
	secretLength = 16

	alphabet = "abcdefghijklmnopqrstuvwxyz0123456789"
)

// Token is a bootstrap token. Only Reveal returns its text: package fmt prints its ID alone.
type Token struct{ id, secret string }

// Parse parses a token. ok is false if text is not a bootstrap token, for example a service account's token.
func Parse(text string) (t Token, ok bool) {
	if len(text) != idLength+1+secretLength || text[idLength] != '.' {
		return Token{}, false
	}
	t = Token{id: text[:idLength], secret: text[idLength+1:]}
	return t, IsID(t.id) && allowed(t.secret)
}

// IsID reports whether text can be the ID of a token.
func IsID(text string) bool { return len(text) == idLength && allowed(text) }

func allowed(text string) bool {
	for _, c := range []byte(text) {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') {
			return false
		}
	}
	return true
}

// New returns a new random token. Its secret has 82 bits of entropy.
func New() Token { return Token{id: random(idLength), secret: random(secretLength)} }

// random returns random characters of the alphabet, each with the same probability.
func random(length int) string {
	// Bytes from this multiple of the alphabet's length on are skipped, so that no character is more likely than another.
	const limit = 256 - 256%len(alphabet)
	text, buffer := make([]byte, 0, length), make([]byte, 2*length)
	for {
		// Read never fails: the runtime ends the process if there is no random source.
		_, _ = rand.Read(buffer)
		for _, b := range buffer {
			if int(b) >= limit {
				continue
			}
			if text = append(text, alphabet[int(b)%len(alphabet)]); len(text) == length {
				return string(text)
			}
		}
	}
}

// ID returns the public part of the token.
func (t Token) ID() string { return t.id }

// Reveal returns the text of the token. It is a secret.
func (t Token) Reveal() string { return t.id + "." + t.secret }

// String implements fmt.Stringer.
func (t Token) String() string { return t.id + ".[hidden]" }

// GoString implements fmt.GoStringer.
func (t Token) GoString() string { return t.String() }

func (t Token) hash() [sha256.Size]byte { return sha256.Sum256([]byte(t.secret)) }

// ErrUnknown reports that there is no token with that ID and secret.
var ErrUnknown = errors.New("no such bootstrap token")

// ErrStale reports that it is unknown now whether a token is valid.
var ErrStale = errors.New("bootstrap tokens are not known to be up to date")

// Source reports whether a Memory is up to date.
type Source interface {
	// Fresh returns an error if the memory may lag too far behind other replicas.
	Fresh() error
}

// Memory verifies tokens. It listens to the feed of all Secrets and keeps an Entry of each bootstrap token.
type Memory struct {
	source Source
	clock  clock.PassiveClock

	mu      sync.RWMutex
	entries map[string]Entry
}

// NewMemory returns an empty memory.
func NewMemory(source Source, c clock.PassiveClock) *Memory {
	return &Memory{source: source, clock: c, entries: map[string]Entry{}}
}

// Set implements mirror.Listener. The token of a Secret that is being deleted is invalid, even if a finalizer keeps the
// Secret.
func (m *Memory) Set(obj runtime.Object) {
	secret, ok := obj.(*corev1.Secret)
	if !ok {
		return
	}
	entry, err := FromSecret(secret)
	if err != nil || secret.DeletionTimestamp != nil {
		m.Delete(obj)
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.entries[entry.ID] = entry
}

// Delete implements mirror.Listener.
func (m *Memory) Delete(obj runtime.Object) {
	object, err := meta.Accessor(obj)
	if err != nil || object.GetNamespace() != Namespace {
		return
	}
	id, ok := strings.CutPrefix(object.GetName(), SecretPrefix)
	if !ok {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.entries, id)
}

// Verify returns the entry of token t if the token is valid now. ErrUnknown is the error for a wrong secret and for a wrong
// ID: only the bearer of the whole token gets the reason of a refusal. After ErrStale the token may still be valid.
func (m *Memory) Verify(t Token) (Entry, error) {
	if err := m.source.Fresh(); err != nil {
		return Entry{}, fmt.Errorf("%w: %w", ErrStale, err)
	}
	m.mu.RLock()
	entry, ok := m.entries[t.id]
	m.mu.RUnlock()
	// The secrets are compared even if there is no entry, so that the duration does not reveal which IDs exist.
	given := t.hash()
	same := subtle.ConstantTimeCompare(given[:], entry.hash[:]) == 1
	if !ok || !same {
		return Entry{}, ErrUnknown
	}
	if err := entry.Usable(m.clock.Now()); err != nil {
		return Entry{}, fmt.Errorf("bootstrap token %s: %w", t.id, err)
	}
	return entry, nil
}
