// Package bootstraptoken makes, reads and verifies bootstrap tokens: the short-lived credentials with which a machine
// that has none yet asks to become a node.
//
// A token is "ID.SECRET", six and sixteen characters of a-z and 0-9. It lives in a Secret of type
// bootstrap.kubernetes.io/token called bootstrap-token-ID in kube-system, in the form Kubernetes gives it. Memory keeps
// what is needed to verify one, which is not the secret itself but its hash. The package knows no HTTP and no storage.
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

// Token is one bootstrap token. Its text is had from Reveal alone: formatted in any other way it shows its ID only.
type Token struct{ id, secret string }

// Parse reads the text of a token; ok is false for everything else, such as a service account's token.
func Parse(text string) (t Token, ok bool) {
	if len(text) != idLength+1+secretLength || text[idLength] != '.' {
		return Token{}, false
	}
	t = Token{id: text[:idLength], secret: text[idLength+1:]}
	return t, IsID(t.id) && allowed(t.secret)
}

// IsID tells whether text can be the ID of a token.
func IsID(text string) bool { return len(text) == idLength && allowed(text) }

func allowed(text string) bool {
	for _, c := range []byte(text) {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') {
			return false
		}
	}
	return true
}

// New makes a token from the system's secure random source: its secret has 82 bits.
func New() Token { return Token{id: random(idLength), secret: random(secretLength)} }

// random draws each character from the alphabet with equal chance.
func random(length int) string {
	// The largest multiple of the alphabet's length that a byte can be below.
	const limit = 256 - 256%len(alphabet)
	text, buffer := make([]byte, 0, length), make([]byte, 2*length)
	for {
		// Read never fails: the runtime ends the process where there is no random source.
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

// ID is the public part of the token.
func (t Token) ID() string { return t.id }

// Reveal returns the whole token, the credential itself.
func (t Token) Reveal() string { return t.id + "." + t.secret }

// String implements fmt.Stringer.
func (t Token) String() string { return t.id + ".[hidden]" }

// GoString implements fmt.GoStringer.
func (t Token) GoString() string { return t.String() }

func (t Token) hash() [sha256.Size]byte { return sha256.Sum256([]byte(t.secret)) }

// ErrUnknown says that there is no token of that ID and secret.
var ErrUnknown = errors.New("no such bootstrap token")

// ErrStale says that whether a token holds cannot be told now.
var ErrStale = errors.New("bootstrap tokens are not known to be up to date")

// Source tells whether what a memory holds may be trusted now.
type Source interface {
	// Fresh returns an error when the memory may be behind other replicas for too long.
	Fresh() error
}

// Memory verifies tokens by the Secrets it is told of. It listens to the feed of all secrets and remembers those of
// bootstrap tokens, each without its secret part.
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

// Set implements mirror.Listener. A Secret under deletion is a token no more, even while a finalizer keeps it.
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

// Verify returns what is known of the token t if it holds now. ErrUnknown does not tell a wrong secret from a wrong ID:
// only who has the whole token learns why it is refused. ErrStale is no refusal.
func (m *Memory) Verify(t Token) (Entry, error) {
	if err := m.source.Fresh(); err != nil {
		return Entry{}, fmt.Errorf("%w: %w", ErrStale, err)
	}
	m.mu.RLock()
	entry, ok := m.entries[t.id]
	m.mu.RUnlock()
	// Compared even where there is none, so that the time taken does not tell which IDs there are.
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
