package apiserver

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apiserver/pkg/storage/value"
	"k8s.io/klog/v2"
	"k8s.io/utils/clock"

	"lanyard.dev/internal/apiserver/issuance"
	"lanyard.dev/internal/apiserver/keyring"
	"lanyard.dev/internal/apiserver/metrics"
	signingkeyregistry "lanyard.dev/internal/apiserver/registry/signingkey"
	"lanyard.dev/internal/controller"
	"lanyard.dev/internal/controller/keyrotation"
	"lanyard.dev/internal/hint"
	"lanyard.dev/internal/rbac/bootstrap"
	"lanyard.dev/internal/signingkey"
	"lanyard.dev/internal/signingkey/rotation"
)

// newKeyring returns the keys in etcd. They are encrypted like Secrets.
func newKeyring(o *Options, k *keys, s *storage) (*keyring.Keyring, error) {
	config := s.unserved(keyring.Resource, keyring.Codec{})
	if s.library.ResourceTransformers != nil {
		config.Transformer = s.library.ResourceTransformers.TransformerForResource(corev1.Resource("secrets"))
	}
	if !encrypts(config.Transformer) {
		return nil, hint.New(fmt.Errorf("%s does not encrypt Secrets, so signing keys would be stored as they are", o.EncryptionProviderConfig),
			"name secrets there, with another first provider than identity, or keep the keys in files with --service-account-signing-key-file")
	}
	stored, feed, closeStored, err := s.mirror.Unserved(config, keyring.Prefix, keyring.NewObject, keyring.NewList)
	if err != nil {
		return nil, err
	}
	s.closeUnserved.add(closeStored)
	return keyring.New(keyring.Config{Storage: stored, Feed: feed, Policy: o.ServiceAccounts.rotation(), Accepted: k.tokens})
}

// encrypts reports whether a transformer changes what it stores. One that cannot now, such as a plugin, does.
func encrypts(t value.Transformer) bool {
	if t == nil {
		return false
	}
	plain := []byte("plain")
	stored, err := t.TransformToStorage(context.Background(), plain, value.DefaultContext(keyring.Prefix))
	return err != nil || !bytes.Equal(stored, plain)
}

// prepare makes the first keys, or takes over the key of a file. It must be called once the feeds have synced, and before tokens
// are issued.
func (t *tokenKeys) prepare(ctx context.Context) error {
	if t.ring == nil {
		return nil
	}
	policy, now := t.ring.Policy(), clock.RealClock{}.Now()
	var made []rotation.Change
	_, err := t.ring.Change(ctx, func(r rotation.Ring) (rotation.Ring, error) {
		r, made = policy.TakeOver(r, t.takeOver, now)
		if len(r.Accepted()) > 0 {
			return r, nil // the rest is the controller's
		}
		next, first, err := policy.Advance(r, now, nil)
		made = append(made, first...)
		return next, err
	})
	for _, change := range made {
		klog.InfoS("Signing key", "key", change.Key, "algorithm", change.Algorithm, "state", change.State)
	}
	return err
}

// newKeyController returns the controller that replaces the keys in etcd, and its recorder of events. Keys in files have none.
func newKeyController(t *tokenKeys, c clients) controllers {
	if t.ring == nil {
		return nil
	}
	events := controller.NewRecorder(keyrotation.Component, c.byName[bootstrap.SigningKeyController])
	return controllers{events, keyrotation.New(keyrotation.Config{
		Keys: t.ring, Tokens: t.live, Events: events, Reference: signingkeyregistry.Reference, Clock: clock.RealClock{},
	})}
}

// ledgerCount counts live tokens in the ledger.
type ledgerCount struct{ journal *issuance.Journal }

// LiveTokens implements rotation.Tokens.
func (c ledgerCount) LiveTokens(kid string) (int, error) {
	if err := c.journal.Feed.Fresh(); err != nil {
		return 0, err
	}
	return c.journal.Memory.CountByKey(kid), nil
}

// served returns what the API's SigningKeys are made from.
func (t *tokenKeys) served() signingkeyregistry.Config {
	c := signingkeyregistry.Config{Files: t.KeySource, Tokens: t.live, Clock: clock.RealClock{}}
	if t.ring != nil {
		c.Keyring = t.ring
	}
	return c
}

// metrics returns what the metrics say about the keys in etcd.
func (t *tokenKeys) metrics() (all []metrics.SigningKey) {
	ring, _ := t.ring.Ring()
	for _, key := range ring.Accepted() {
		shown := metrics.SigningKey{ID: key.ID, State: string(key.State())}
		if key.State() == rotation.Signing {
			shown.Signing = key.Signed
		}
		var err error
		if shown.Live, err = t.live.LiveTokens(key.ID); err != nil {
			shown.Live = -1
		}
		all = append(all, shown)
	}
	return all
}

// readTakeOver returns the keys of the files that exist.
func readTakeOver(paths []string) (all []rotation.File, err error) {
	for _, path := range paths {
		info, err := os.Stat(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("load signing key: %w", err)
		}
		key, err := signingkey.LoadPrivate(path)
		if err != nil {
			return nil, err
		}
		all = append(all, rotation.File{Key: key, Written: info.ModTime()})
	}
	return all, nil
}
