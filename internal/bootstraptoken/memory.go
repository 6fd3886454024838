package bootstraptoken

import (
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
