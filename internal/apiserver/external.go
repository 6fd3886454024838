package apiserver

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/util/validation/field"

	"lanyard.dev/internal/apiserver/externalsigner"
	"lanyard.dev/internal/apiserver/issuance"
	"lanyard.dev/internal/apiserver/keyfiles"
	"lanyard.dev/internal/apiserver/keyring"
	"lanyard.dev/internal/apiserver/metrics"
	"lanyard.dev/internal/hint"
	"lanyard.dev/internal/signingkey"
	"lanyard.dev/internal/signingkey/rotation"
	"lanyard.dev/internal/token"
)

// tokenKeys are the keys that sign and verify the tokens of service accounts: those of files, those in etcd,
// or those of an external signer.
type tokenKeys struct {
	signingkey.KeySource
	// files are the keys in files; nil if there is an external signer.
	files *keyfiles.Keys
	// ring is the keys in etcd; nil if the keys are elsewhere. It takes over the keys in takeOver.
	ring     *keyring.Keyring
	takeOver []rotation.File
	// live counts the live tokens of a key.
	live rotation.Tokens
	// external is the external signer; nil if the keys are in files or in etcd.
	external *externalsigner.Signer
}

// newTokenKeys returns the keys of files or in etcd, or connects to an external signer.
func newTokenKeys(o *Options, k *keys, s *storage, journal *issuance.Journal, m *metrics.Metrics) (tokenKeys, error) {
	accounts, live := &o.ServiceAccounts, ledgerCount{journal}
	if accounts.inEtcd() {
		ring, err := newKeyring(o, k, s)
		return tokenKeys{KeySource: ring, files: k.tokens, ring: ring, takeOver: k.takeOver, live: live}, err
	}
	if accounts.SigningEndpoint == "" {
		return tokenKeys{KeySource: k.tokens, files: k.tokens, live: live}, nil
	}
	signer, err := externalsigner.Connect(context.Background(), externalsigner.Config{Socket: accounts.SigningEndpoint, Metrics: m.NewSigner()})
	if err != nil {
		return tokenKeys{}, err
	}
	if longest := signer.MaxLifetime(); accounts.MaxTokenExpiration > longest {
		signer.Close()
		return tokenKeys{}, hint.New(fmt.Errorf("external signer at %s: its tokens live for at most %v, and the configured limit is %v",
			accounts.SigningEndpoint, longest, accounts.MaxTokenExpiration), "lower --service-account-max-token-expiration, or leave it out")
	}
	return tokenKeys{KeySource: signer, external: signer, live: live}, nil
}

// run keeps the keys up to date until ctx ends.
func (t *tokenKeys) run(ctx context.Context) {
	if t.external != nil {
		t.external.Run(ctx)
		return
	}
	t.files.Run(ctx)
}

// close closes the connection to an external signer.
func (t *tokenKeys) close() {
	if t.external != nil {
		t.external.Close()
	}
}

// signer returns what signs tokens. signatures remembers those of keys in this process.
func (t *tokenKeys) signer(signatures *token.Signatures) token.Signer {
	if t.external != nil {
		return t.external
	}
	if t.ring != nil {
		return t.ring.Signer(signatures.NewKeySigner(t))
	}
	return signatures.NewKeySigner(t)
}

// guard returns a verifier as it is used: it asks an external signer, or etcd, for the keys before it refuses a token for its key.
func (t *tokenKeys) guard(v metrics.Verifier) metrics.Verifier {
	if t.ring != nil {
		return t.ring.Verifier(v)
	}
	if t.external != nil {
		return t.external.Verifier(v)
	}
	return v
}

// lifetimes returns the limits for the life of tokens. If none is configured, that of an external signer counts.
func (t *tokenKeys) lifetimes(o *ServiceAccounts) token.LifetimePolicy {
	policy := token.LifetimePolicy{Min: o.MinTokenExpiration, Max: o.MaxTokenExpiration}
	if policy.Max == 0 && t.external != nil {
		policy.Max = t.external.MaxLifetime()
	}
	return policy
}

// maxAge returns for how long clients may cache the published keys. Those of an external signer may change when it is asked again.
func (t *tokenKeys) maxAge() time.Duration {
	if t.external != nil {
		return min(keySetMaxAge, t.external.MaxAge())
	}
	if t.ring != nil && t.ring.Fresh() != nil {
		return staleMaxAge
	}
	return keySetMaxAge
}

// validateEndpoint returns the faults of options that do not go together with an external signer. That signer has all keys, and
// chooses the one that signs.
func (o *ServiceAccounts) validateEndpoint(path *field.Path) field.ErrorList {
	if o.SigningEndpoint == "" {
		return nil
	}
	endpoint := path.Child("signingEndpoint")
	var faults field.ErrorList
	for name, set := range map[string]bool{
		"signingKeyFiles": len(o.SigningKeyFiles) > 0, "keyFiles": len(o.KeyFiles) > 0, "audienceAlgorithms": len(o.AudienceAlgorithms) > 0,
	} {
		if set {
			faults = append(faults, field.Forbidden(path.Child(name), fmt.Sprintf(
				"`%v` and `%v` exclude each other: an external signer has all keys and chooses the one that signs", endpoint, path.Child(name))))
		}
	}
	slices.SortFunc(faults, func(a, b *field.Error) int { return cmp.Compare(a.Field, b.Field) })
	return faults
}
