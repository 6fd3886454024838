package nodeaccess

import (
	"errors"
	"fmt"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation"
)

const (
	// EvictionType is the type of a Secret that evicts a node, EvictionNamespace the only namespace in which it does, and
	// EvictionKey the key of its data that names the node.
	EvictionType      corev1.SecretType = "identity.lanyard.dev/node-eviction"
	EvictionNamespace                   = metav1.NamespaceSystem
	EvictionKey                         = "node"

	evictionPrefix = "node-eviction-"

	// ExtraNotBefore is the key in the user info of a node that holds the NotBefore of its certificate, in RFC 3339.
	// Certificate requests store it with the other properties of the requester.
	ExtraNotBefore = "identity.lanyard.dev/certificate-not-before"
)

// ErrEvicted means that a certificate is from before the eviction of its node.
var ErrEvicted = errors.New("the node was evicted")

// NewEviction returns a new Secret that evicts a node.
func NewEviction(node string) *corev1.Secret {
	immutable := true
	return &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: EvictionNamespace, GenerateName: evictionPrefix},
		Type:       EvictionType, Immutable: &immutable, Data: map[string][]byte{EvictionKey: []byte(node)},
	}
}

// CheckEviction returns the reason why a Secret of type EvictionType evicts no node, or nil.
func CheckEviction(s *corev1.Secret) error {
	node := string(s.Data[EvictionKey])
	switch {
	case s.Namespace != EvictionNamespace:
		return fmt.Errorf("it must be in namespace %s", EvictionNamespace)
	case node == "":
		return fmt.Errorf("data[%s] must name the node", EvictionKey)
	case len(validation.IsDNS1123Subdomain(node)) > 0:
		return fmt.Errorf("data[%s] is not the name of a node", EvictionKey)
	}
	return nil
}

// Evictions knows which nodes were evicted, and when. It listens to the feed of secrets.
//
// An eviction refuses every certificate of the node that became valid before it, since there is no list of the
// certificates that were signed: another program may sign them. A later certificate, from a new join, is accepted.
type Evictions struct {
	source Source

	mu      sync.RWMutex
	records map[string]eviction  // by the name of the secret
	since   map[string]time.Time // by node: the latest of its records
}

type eviction struct {
	node string
	at   time.Time
}

// NewEvictions returns an empty record.
func NewEvictions(source Source) *Evictions {
	return &Evictions{source: source, records: map[string]eviction{}, since: map[string]time.Time{}}
}

// Set implements mirror.Listener. The time of an eviction is the creationTimestamp of the Secret, in whole seconds. The
// server sets it, so the author of the Secret cannot choose it.
func (e *Evictions) Set(obj runtime.Object) {
	s, ok := obj.(*corev1.Secret)
	if !ok || s.Type != EvictionType || CheckEviction(s) != nil {
		return
	}
	record := eviction{node: string(s.Data[EvictionKey]), at: s.CreationTimestamp.Time}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.records[s.Name] == record {
		return
	}
	e.forget(s.Name) // a Secret that is not immutable may have named another node before
	e.records[s.Name] = record
	if record.at.After(e.since[record.node]) {
		e.since[record.node] = record.at
	}
}

// Delete implements mirror.Listener.
func (e *Evictions) Delete(obj runtime.Object) {
	m, err := meta.Accessor(obj)
	if err != nil || m.GetNamespace() != EvictionNamespace {
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.forget(m.GetName())
}

// forget removes a record, if there is one. The caller holds mu.
func (e *Evictions) forget(name string) {
	gone, ok := e.records[name]
	if !ok {
		return
	}
	delete(e.records, name)
	delete(e.since, gone.node)
	for _, left := range e.records {
		if left.node == gone.node && left.at.After(e.since[left.node]) {
			e.since[left.node] = left.at
		}
	}
}

// Earliest returns the earliest NotBefore with which a certificate of the node is accepted; zero if every certificate is. An
// error means that this is not known now.
func (e *Evictions) Earliest(node string) (time.Time, error) {
	if err := e.source.Fresh(); err != nil {
		return time.Time{}, err
	}
	e.mu.RLock()
	defer e.mu.RUnlock()
	at, ok := e.since[node]
	if !ok {
		return time.Time{}, nil
	}
	// Certificates and creationTimestamps are in whole seconds: a certificate of the same second may be older.
	return at.Truncate(time.Second).Add(time.Second), nil
}

// Admits returns nil if a certificate of the node is accepted, by its NotBefore; ErrEvicted if it is not; and another error
// if that is not known now.
func (e *Evictions) Admits(node string, notBefore time.Time) error {
	earliest, err := e.Earliest(node)
	if err != nil {
		return err
	}
	if notBefore.Before(earliest) {
		return fmt.Errorf("%w: certificates of node %q are accepted only if they are valid from %s on, and this one is from %s",
			ErrEvicted, node, earliest.UTC().Format(time.RFC3339), notBefore.UTC().Format(time.RFC3339))
	}
	return nil
}

// AdmitsUser is Admits for a user, as it was authenticated or as a certificate request stores its requester. It admits users
// that did not present a node's certificate.
func (e *Evictions) AdmitsUser(user string, groups, notBefore []string) error {
	node, ok := Identify(user, groups)
	if !ok || len(notBefore) == 0 {
		return nil
	}
	at, err := time.Parse(time.RFC3339, notBefore[0])
	if err != nil {
		return fmt.Errorf("%w, perhaps: the start of validity of the certificate of node %q cannot be read", ErrEvicted, node)
	}
	return e.Admits(node, at)
}
