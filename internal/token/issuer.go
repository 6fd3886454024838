package token

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"k8s.io/utils/clock"

	"lanyard.dev/internal/signingkey"
)

// Request asks for one token. The caller has checked that the account and the bound objects exist, belong together and
// have these UIDs, and that the lifetime is within policy.
type Request struct {
	Namespace      string
	ServiceAccount Ref
	// Audiences has at least one entry; none is empty.
	Audiences []string
	// Lifetime is cut to whole seconds, of which there must be at least one.
	Lifetime time.Duration
	// Pod, Secret or Node binds the token. Pod and Node may be given together: Node then says where the pod runs.
	Pod, Secret, Node *Ref
}

// ErrRequest says that a Request breaks its contract; the text names the fault.
var ErrRequest = errors.New("token request is invalid")

// Issuer issues tokens in the name of one issuer URL. It is safe for concurrent use.
type Issuer struct {
	url    string
	keys   signingkey.KeySource
	clock  clock.PassiveClock
	header atomic.Pointer[headerSegment]
}

// headerSegment is the encoded header of every token a key signs, dot included.
type headerSegment struct {
	key  *signingkey.PrivateKey
	text string
}

// NewIssuer makes an issuer. issuerURL becomes `iss`; if it has a colon it must parse as a URL (RFC 7519 section 2).
func NewIssuer(issuerURL string, keys signingkey.KeySource, clk clock.PassiveClock) (*Issuer, error) {
	if issuerURL == "" {
		return nil, errors.New("issuer is empty")
	}
	if strings.Contains(issuerURL, ":") {
		if _, err := url.Parse(issuerURL); err != nil {
			return nil, fmt.Errorf("issuer %q is not a URL", issuerURL)
		}
	}
	return &Issuer{url: issuerURL, keys: keys, clock: clk}, nil
}

// URL returns the `iss` of the tokens issued.
func (i *Issuer) URL() string { return i.url }

// Issue signs a new token. Errors: ErrRequest, ErrTooLarge, signingkey.ErrNoKey if the set has no signer.
func (i *Issuer) Issue(req Request) (string, *Claims, error) {
	key := i.keys.Current().Signer()
	if key == nil {
		return "", nil, fmt.Errorf("issue token for %s/%s: %w: no signer", req.Namespace, req.ServiceAccount.Name, signingkey.ErrNoKey)
	}
	claims, err := i.claims(req)
	if err != nil {
		return "", nil, fmt.Errorf("issue token for %s/%s: %w", req.Namespace, req.ServiceAccount.Name, err)
	}
	text, err := sign(key, i.headerFor(key), claims)
	if err != nil {
		return "", nil, fmt.Errorf("issue token for %s/%s: %w", req.Namespace, req.ServiceAccount.Name, err)
	}
	return text, claims, nil
}

func (i *Issuer) claims(req Request) (*Claims, error) {
	seconds := int64(req.Lifetime / time.Second)
	if seconds < 1 || req.Lifetime > MaxLifetime {
		return nil, fmt.Errorf("%w: lifetime %v is out of range", ErrRequest, req.Lifetime)
	}
	if len(req.Audiences) == 0 || slices.Contains(req.Audiences, "") {
		return nil, fmt.Errorf("%w: an audience is missing", ErrRequest)
	}
	k := &Kubernetes{
		Namespace: req.Namespace, ServiceAccount: req.ServiceAccount,
		Pod: clone(req.Pod), Secret: clone(req.Secret), Node: clone(req.Node),
	}
	if err := k.validate(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrRequest, err)
	}
	id, err := uuid.NewRandom()
	if err != nil {
		return nil, err
	}
	now := i.clock.Now().Unix()
	return &Claims{
		Issuer: i.url, Subject: Subject(req.Namespace, req.ServiceAccount.Name), Audience: slices.Clone(req.Audiences),
		Expiry: now + seconds, IssuedAt: now, NotBefore: now, ID: id.String(), Kubernetes: k,
	}, nil
}

func (i *Issuer) headerFor(key *signingkey.PrivateKey) string {
	if h := i.header.Load(); h != nil && h.key == key {
		return h.text
	}
	// Both values are base64url or a constant: neither needs escaping.
	header := `{"alg":"` + string(key.Algorithm()) + `","kid":"` + key.ID() + `"}`
	h := &headerSegment{key: key, text: segment.EncodeToString([]byte(header)) + "."}
	i.header.Store(h)
	return h.text
}

// sign builds the compact form around the key's raw signature. go-jose's builder marshals the header anew for each
// token and the claims twice: it took half as long again (BenchmarkSignGoJOSE, BenchmarkIssueES256) and four times the
// allocations. Its parser is what the tests hold the result against. An encoder of the claims written by hand would
// save less than a microsecond of thirty.
func sign(key *signingkey.PrivateKey, header string, claims *Claims) (string, error) {
	payload, err := json.Marshal(claims)
	if err != nil {
		return "", err
	}
	out := make([]byte, 0, len(header)+segment.EncodedLen(len(payload))+1+maxSignatureSegment)
	out = segment.AppendEncode(append(out, header...), payload)
	signature, err := key.Sign(out)
	if err != nil {
		return "", err
	}
	out = segment.AppendEncode(append(out, '.'), signature)
	if len(out) > MaxSize {
		return "", ErrTooLarge
	}
	return string(out), nil
}

// maxSignatureSegment is the room for the encoded signature of RSA-2048; a longer one makes the buffer grow.
const maxSignatureSegment = 342

func clone(r *Ref) *Ref {
	if r == nil {
		return nil
	}
	c := *r
	return &c
}

// Kubernetes' limits of a TokenRequest's spec.expirationSeconds.
const (
	MinLifetime     = 600 * time.Second
	DefaultLifetime = 3600 * time.Second
	// MaxLifetime is 2^32 seconds, the most that may be asked for.
	MaxLifetime = (1 << 32) * time.Second
)

// Why a requested lifetime is refused; the texts are Kubernetes'.
var (
	ErrLifetimeTooShort = errors.New("may not specify a duration less than 10 minutes")
	ErrLifetimeTooLong  = errors.New("may not specify a duration larger than 2^32 seconds")
)

// LifetimePolicy bounds how long tokens live.
type LifetimePolicy struct {
	// Min is the least that may be asked for; 0 means MinLifetime. Only tests have a reason to set it.
	Min time.Duration
	// Max shortens every longer lifetime; 0 means that none is shortened.
	Max time.Duration
}

// Lifetime returns how long a token asked for with requestedSeconds lives, nil asking for DefaultLifetime. capped says
// that this is shorter than asked for. The error is one about requestedSeconds, fit to show to the client.
func (p LifetimePolicy) Lifetime(requestedSeconds *int64) (lifetime time.Duration, capped bool, err error) {
	seconds := int64(DefaultLifetime / time.Second)
	if requestedSeconds != nil {
		seconds = *requestedSeconds
	}
	if seconds > int64(MaxLifetime/time.Second) {
		return 0, false, ErrLifetimeTooLong
	}
	if seconds < 0 || time.Duration(seconds)*time.Second < p.min() {
		return 0, false, p.tooShort()
	}
	lifetime = time.Duration(seconds) * time.Second
	if p.Max > 0 && lifetime > p.Max {
		return p.Max, true, nil
	}
	return lifetime, false, nil
}

func (p LifetimePolicy) min() time.Duration {
	if p.Min > 0 {
		return p.Min
	}
	return MinLifetime
}

func (p LifetimePolicy) tooShort() error {
	if p.min() == MinLifetime {
		return ErrLifetimeTooShort
	}
	return fmt.Errorf("may not specify a duration less than %v", p.min())
}
