package standalone

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/klog/v2"
	"k8s.io/utils/clock"

	"lanyard.dev/internal/apiserver/encryption"
	"lanyard.dev/internal/datadir"
)

const (
	// encryptionPeriod is the time between two looks at the age of the key that encrypts secrets.
	encryptionPeriod = 10 * time.Minute
	// keepKeyFor is how long a key is kept after it was replaced, even if nothing is encrypted with it. A request that began before
	// may still write with it, and a list that continues reads earlier revisions. They are compacted within ten minutes.
	keepKeyFor = 15 * time.Minute

	objectsPrefix = "/registry/"
	secretsPrefix = objectsPrefix + "secrets/"
)

// encryptionKeys replaces the key that encrypts secrets when it has reached an age. A new key is put into the configuration and
// encrypts from then on, what is stored is written again in the background, and then the earlier keys are dropped. Each step can be
// interrupted: the next start continues.
type encryptionKeys struct {
	dir        *datadir.Dir
	encryption *encryption.Encryption
	client     *clientv3.Client
	clock      clock.Clock
	// age is the age at which a key is replaced; 0 means never.
	age time.Duration

	mu     sync.Mutex
	closed bool
	since  time.Time // when the configuration in force was read
}

// keep replaces keys until ctx ends.
func (k *encryptionKeys) keep(ctx context.Context) {
	lastError := ""
	for {
		err := k.step(ctx)
		switch {
		case err == nil, errors.Is(err, datadir.ErrOwnEncryption):
			lastError = ""
		case ctx.Err() == nil && err.Error() != lastError:
			lastError = err.Error()
			klog.ErrorS(err, "The key that encrypts secrets is not replaced until this error is fixed")
		}
		select {
		case <-ctx.Done():
			return
		case <-k.clock.After(encryptionPeriod):
		}
	}
}

// step does what is due.
func (k *encryptionKeys) step(ctx context.Context) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.closed {
		return errUnlocked
	}
	keys, err := k.dir.EncryptionKeys()
	if err != nil {
		return err
	}
	// One replacement ends before the next one begins.
	if len(keys) == 1 && k.age > 0 && k.clock.Since(keys[0].Created) >= k.age {
		if err := k.dir.AddEncryptionKey(k.clock.Now()); err != nil {
			return err
		}
	}
	if err := k.reload(ctx); err != nil {
		return err
	}
	if keys, err = k.dir.EncryptionKeys(); err != nil {
		return err
	}
	// What is read from here on counts: it has to hold no earlier key, long enough after the last request with an earlier key.
	settled := k.clock.Since(k.since) >= keepKeyFor
	rewritten, err := k.encryption.Rewrite(ctx, k.client, corev1.Resource("secrets"), secretsPrefix)
	if err != nil {
		return err
	}
	if rewritten > 0 {
		klog.InfoS("Secrets are encrypted with the current key", "key", keys[0].Name, "count", rewritten)
	}
	if len(keys) == 1 || rewritten > 0 || !settled {
		return nil
	}
	return k.drop(ctx, keys[0].Name)
}

// drop leaves only the current key, unless anything in the store still had an earlier one. Other kinds than Secrets may be
// encrypted with the keys of Secrets too.
func (k *encryptionKeys) drop(ctx context.Context, current string) error {
	rewritten, err := k.encryption.RewriteEncrypted(ctx, k.client, corev1.Resource("secrets"), objectsPrefix)
	if err != nil || rewritten > 0 {
		return err
	}
	if err := k.dir.DropEncryptionKeys(); err != nil {
		return err
	}
	klog.InfoS("The earlier keys of secrets were dropped", "key", current)
	return k.reload(ctx)
}

func (k *encryptionKeys) reload(ctx context.Context) error {
	changed, err := k.encryption.Reload(ctx)
	if err != nil {
		return fmt.Errorf("encrypt secrets: %w", err)
	}
	if changed || k.since.IsZero() {
		k.since = k.clock.Now()
	}
	return nil
}

// close ends all writing before the directory is unlocked. It may be called again.
func (k *encryptionKeys) close() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.closed {
		return nil
	}
	k.closed = true
	return k.client.Close()
}
