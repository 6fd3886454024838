package token

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"k8s.io/utils/clock"

	"lanyard.dev/internal/signingkey"
)

// Request describes one token to issue. The caller has checked that the account and the bound objects exist, belong
// together and have these UIDs, and that the policies allow the lifetime and the algorithm.
type Request struct {
	Namespace      string
	ServiceAccount Ref
	// Audiences has at least one entry; none is empty.
	Audiences []string
	// Algorithm is the one to sign with; empty means the default of the keys. See AlgorithmPolicy.
	Algorithm signingkey.Algorithm
	// Lifetime is truncated to whole seconds. It must be at least one second.
	Lifetime time.Duration
	// Pod, Secret or Node is the object that the token is bound to; nil for none. If both Pod and Node are set, Node is the
	// node that the pod runs on.
	Pod, Secret, Node *Ref
}

// ErrRequest reports that a Request breaks its contract. The text names the fault.
var ErrRequest = errors.New("token request is invalid")

// Signer signs tokens. NewKeySigner makes the one for keys in this process.
type Signer interface {
	// Sign returns the token with a payload, which is JSON, and the ID of the key that signed it. An empty algorithm means the
	// signer's default. The error is signingkey.ErrNoKey if no key has the algorithm, and ErrSignerUnavailable if the signer does
	// not answer.
	Sign(ctx context.Context, alg signingkey.Algorithm, payload []byte) (text, keyID string, err error)
}

// ErrSignerUnavailable reports that the token cannot be signed now, and that a later request may succeed.
var ErrSignerUnavailable = errors.New("the signer of tokens does not answer")

// Issuer issues tokens in the name of one issuer URL. It is safe for concurrent use.
type Issuer struct {
	url    string
	signer Signer
	clock  clock.PassiveClock
}

// NewIssuer returns an issuer. issuerURL becomes the claim iss. If it contains a colon, it must parse as a URL (RFC 7519
// section 2).
func NewIssuer(issuerURL string, signer Signer, clk clock.PassiveClock) (*Issuer, error) {
	if issuerURL == "" {
		return nil, errors.New("issuer is empty")
	}
	if strings.Contains(issuerURL, ":") {
		if _, err := url.Parse(issuerURL); err != nil {
			return nil, fmt.Errorf("issuer %q is not a URL", issuerURL)
		}
	}
	return &Issuer{url: issuerURL, signer: signer, clock: clk}, nil
}

// URL returns the claim iss of the issued tokens.
func (i *Issuer) URL() string { return i.url }

// Issue signs a new token. The error is ErrRequest, ErrTooLarge, or one of Signer.
func (i *Issuer) Issue(ctx context.Context, req Request) (string, *Claims, error) {
	text, claims, err := i.issue(ctx, req)
	if err != nil {
		return "", nil, fmt.Errorf("issue token for %s/%s: %w", req.Namespace, req.ServiceAccount.Name, err)
	}
	return text, claims, nil
}

func (i *Issuer) issue(ctx context.Context, req Request) (string, *Claims, error) {
	claims, err := i.claims(req)
	if err != nil {
		return "", nil, err
	}
	payload, err := json.Marshal(claims)
	if err != nil {
		return "", nil, err
	}
	if segment.EncodedLen(len(payload)) > MaxSize {
		return "", nil, ErrTooLarge
	}
	text, keyID, err := i.signer.Sign(ctx, req.Algorithm, payload)
	if err != nil {
		return "", nil, err
	}
	if len(text) > MaxSize {
		return "", nil, ErrTooLarge
	}
	claims.KeyID = keyID
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
		Issuer: i.url, Subject: subjectOf(req.Namespace, req.ServiceAccount.Name), Audience: slices.Clone(req.Audiences),
		Expiry: now + seconds, IssuedAt: now, NotBefore: now, ID: id.String(), Kubernetes: k,
	}, nil
}

// keySigner signs with the keys of a source.
type keySigner struct {
	keys   signingkey.KeySource
	signed *Signatures // or nil
}

// NewKeySigner returns the Signer of the keys in a source.
func NewKeySigner(keys signingkey.KeySource) Signer { return keySigner{keys, nil} }

// Sign implements Signer. It does not use go-jose's builder, which encodes the header for each token and
// the claims twice: that took half as long again and four times the allocations (BenchmarkSignGoJOSE, BenchmarkIssueES256).
// The tests parse the result with go-jose. An encoder for the claims written by hand would save less than a microsecond of
// thirty.
func (s keySigner) Sign(_ context.Context, alg signingkey.Algorithm, payload []byte) (text, keyID string, err error) {
	key := s.keys.Current().Signer(alg)
	if key == nil {
		return "", "", fmt.Errorf("%w: no signer for %s", signingkey.ErrNoKey, cmp.Or(alg, "any algorithm"))
	}
	header := key.Header()
	out := make([]byte, 0, len(header)+1+segment.EncodedLen(len(payload))+1+maxSignatureSegment)
	out = segment.AppendEncode(append(append(out, header...), '.'), payload)
	signature, err := key.Sign(out)
	if err != nil {
		return "", "", err
	}
	out = segment.AppendEncode(append(out, '.'), signature)
	if s.signed != nil {
		digest := sha256.Sum256(out)
		s.signed.add(&digest, key.Public())
	}
	return string(out), key.ID(), nil
}

// maxSignatureSegment is the length of an encoded RSA-2048 signature. The buffer grows for a longer signature.
const maxSignatureSegment = 342

func clone(r *Ref) *Ref {
	if r == nil {
		return nil
	}
	c := *r
	return &c
}

// The limits of spec.expirationSeconds of a TokenRequest in Kubernetes.
const (
	MinLifetime     = 600 * time.Second
	DefaultLifetime = 3600 * time.Second
	// MaxLifetime is the longest lifetime that may be requested: 2^32 seconds.
	MaxLifetime = (1 << 32) * time.Second
)

// Reasons why a requested lifetime is refused, with the texts of Kubernetes.
var (
	ErrLifetimeTooShort = errors.New("may not specify a duration less than 10 minutes")
	ErrLifetimeTooLong  = errors.New("may not specify a duration larger than 2^32 seconds")
)

// LifetimePolicy limits the lifetime of tokens.
type LifetimePolicy struct {
	// Min is the shortest lifetime that may be requested; 0 means MinLifetime. Only tests set it.
	Min time.Duration
	// Max shortens longer lifetimes; 0 shortens none.
	Max time.Duration
}

// Lifetime returns the lifetime of a token for a request of requestedSeconds; nil requests DefaultLifetime. capped reports
// whether the lifetime is shorter than requested. The error is about requestedSeconds and may be shown to the client.
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

// AlgorithmPolicy names the signing algorithm that an audience needs. An audience that it does not name accepts any.
type AlgorithmPolicy map[string]signingkey.Algorithm

// ErrAlgorithms reports that no signature suits all audiences of a token. The text may be shown to the client.
var ErrAlgorithms = errors.New("no algorithm suits all audiences")

// Algorithm returns the algorithm for a token with these audiences. It is empty if none of them needs a particular one. The
// error is ErrAlgorithms.
func (p AlgorithmPolicy) Algorithm(audiences []string) (signingkey.Algorithm, error) {
	var needed signingkey.Algorithm
	var by string
	for _, audience := range audiences {
		switch alg := p[audience]; {
		case alg == "" || alg == needed:
		case needed == "":
			needed, by = alg, audience
		default:
			return "", fmt.Errorf("%w: %q needs %s and %q needs %s, so request a token for each", ErrAlgorithms, by, needed, audience, alg)
		}
	}
	return needed, nil
}
