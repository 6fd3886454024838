package streams

import (
	"context"
	"crypto/sha256"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/utils/clock"
)

// Reason is why a stream ended before its client or its handler ended it.
type Reason string

const (
	// Credential means that the credential is no longer accepted, or identifies another user now.
	Credential Reason = "credential"
	// Rights means that the user may no longer do what the stream does, or may no longer impersonate.
	Rights Reason = "rights"
	// Undecided means that it was unknown for too long whether the stream may go on.
	Undecided Reason = "undecided"
)

// Reasons returns every Reason.
func Reasons() []Reason { return []Reason{Credential, Rights, Undecided} }

// ID is a digest.
type ID = [sha256.Size]byte

// Presented is the credential that a request presented.
type Presented interface {
	// ID is the same for requests that present the same credential, and differs for others.
	ID() ID
	// User authenticates the credential as that of a new request would be. It returns an outage.Error if that is not possible
	// now. If ctx has ended, it answers from memory or returns an error.
	User(ctx context.Context) (user.Info, error)
}

// Config configures a Registry.
type Config struct {
	// Present returns the credential of a request that was not authenticated yet.
	Present    func(*http.Request) Presented
	Authorizer authorizer.UnconditionalAuthorizer
	// MaxLag is how long a stream may go on after it was accepted last, while answers are uncertain.
	MaxLag time.Duration
	// Ended is called with the number of streams that were ended for a reason.
	Ended func(Reason, int)
	Clock clock.WithDelayedExecution
}

// Registry holds the open streams. It is safe for concurrent use.
type Registry struct {
	Config
	lines    *rate.Limiter
	unlogged atomic.Int64

	wake    chan struct{} // holds one value after Wake, until the check begins
	changes atomic.Uint64 // calls of Wake
	// asking limits the checks that ask storage.
	asking chan struct{}

	mu     sync.Mutex
	groups map[groupID]*group
}

// New returns a registry without streams. Run must be called.
func New(c Config) *Registry {
	return &Registry{
		Config: c, lines: rate.NewLimiter(linesPerSecond, linesBurst), wake: make(chan struct{}, 1),
		asking: make(chan struct{}, maxAsking), groups: map[groupID]*group{},
	}
}

// Wake makes Run check every stream soon. Call it after a change that may refuse a caller, once the authenticator and the
// authorizer decide by the new state. It does not wait.
func (r *Registry) Wake() {
	r.changes.Add(1)
	r.signal()
}

func (r *Registry) signal() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// Listener calls Wake for the changes of a feed. It is a mirror.Listener.
type Listener struct {
	registry *Registry
	matters  func(runtime.Object) bool
}

// Listener returns a listener that wakes the registry for each deletion, and for each object that exists and matters. The
// feed must call it after the listeners by which the authenticator and the authorizer learn of the change.
func (r *Registry) Listener(matters func(runtime.Object) bool) *Listener {
	return &Listener{r, matters}
}

// Set implements mirror.Listener.
func (l *Listener) Set(obj runtime.Object) {
	if l.matters(obj) {
		l.registry.Wake()
	}
}

// Delete implements mirror.Listener.
func (l *Listener) Delete(runtime.Object) { l.registry.Wake() }
