package encryption

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/storage/value"
)

const (
	// pageSize is the number of objects that are read at once, of at most about 1 MiB each.
	pageSize = 50
	// callTimeout limits one call of etcd.
	callTimeout = 30 * time.Second

	// Unencrypted counts objects in Stored that are not encrypted, and Other those that are encrypted in another way.
	Unencrypted = "none"
	Other       = "other"

	maxKeyName = 64
)

var (
	encryptedPrefix = []byte("k8s:enc:")
	secretboxPrefix = []byte("k8s:enc:secretbox:v1:")
)

// Rewrite reads all objects of a resource under a prefix of etcd's keys, and writes those again that are encrypted with another key
// than the current one. Nothing else in an object changes. An object that a request writes at the same time is left alone, since the
// request encrypts it. Rewrite returns how many objects it wrote: 0 means that none had another key when it was read.
func (e *Encryption) Rewrite(ctx context.Context, client *clientv3.Client, resource schema.GroupResource, prefix string) (rewritten int, err error) {
	r := e.newRewriter(client, resource)
	sample, err := r.transformer.TransformToStorage(ctx, nil, value.DefaultContext(prefix))
	if err != nil {
		return 0, fmt.Errorf("encrypt %s: %w", resource, err)
	}
	r.stored[keyName(sample)] = 0
	if err := r.all(ctx, prefix); err != nil {
		return r.rewritten, fmt.Errorf("encrypt %s again: %w", resource, err)
	}
	e.stored.Store(&r.stored)
	return r.rewritten, nil
}

// RewriteEncrypted does the same for every object under a prefix that is encrypted, of whatever kind, with the keys of a resource. It
// leaves alone what is not encrypted. Its use is before a key is dropped, since a value that only that key decrypts would be lost.
func (e *Encryption) RewriteEncrypted(ctx context.Context, client *clientv3.Client, resource schema.GroupResource, prefix string) (rewritten int, err error) {
	r := e.newRewriter(client, resource)
	r.encryptedOnly = true
	if err := r.all(ctx, prefix); err != nil {
		return r.rewritten, fmt.Errorf("encrypt again what is encrypted under %s: %w", prefix, err)
	}
	return r.rewritten, nil
}

func (e *Encryption) newRewriter(client *clientv3.Client, resource schema.GroupResource) *rewriter {
	return &rewriter{client: client, transformer: e.transformers.TransformerForResource(resource), stored: map[string]int{}}
}

// Stored returns the number of objects by the name of the key that encrypts them, as the last Rewrite has left them.
func (e *Encryption) Stored() map[string]int {
	if stored := e.stored.Load(); stored != nil {
		return maps.Clone(*stored)
	}
	return nil
}

type rewriter struct {
	client      *clientv3.Client
	transformer value.Transformer
	stored      map[string]int
	rewritten   int
	// encryptedOnly leaves alone what is not encrypted.
	encryptedOnly bool
}

func (r *rewriter) all(ctx context.Context, prefix string) (err error) {
	end := clientv3.GetPrefixRangeEnd(prefix)
	for from := prefix; from != ""; {
		if from, err = r.page(ctx, from, end); err != nil {
			return err
		}
	}
	return nil
}

// page rewrites some objects, and returns the key to continue with, or "".
func (r *rewriter) page(ctx context.Context, from, end string) (next string, err error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	page, err := r.client.Get(ctx, from, clientv3.WithRange(end), clientv3.WithLimit(pageSize))
	if err != nil {
		return "", err
	}
	for _, kv := range page.Kvs {
		if err := r.object(ctx, string(kv.Key), kv.Value, kv.ModRevision, kv.Lease); err != nil {
			return "", fmt.Errorf("%s: %w", kv.Key, err)
		}
		next = string(kv.Key) + "\x00"
	}
	if !page.More {
		return "", nil
	}
	return next, nil
}

func (r *rewriter) object(ctx context.Context, key string, stored []byte, revision, lease int64) error {
	if r.encryptedOnly && !bytes.HasPrefix(stored, encryptedPrefix) {
		return nil
	}
	bound := value.DefaultContext(key)
	plain, stale, err := r.transformer.TransformFromStorage(ctx, stored, bound)
	if err != nil {
		return fmt.Errorf("decrypt: %w", err)
	}
	if !stale {
		r.stored[keyName(stored)]++
		return nil
	}
	encrypted, err := r.transformer.TransformToStorage(ctx, plain, bound)
	if err != nil {
		return fmt.Errorf("encrypt: %w", err)
	}
	r.stored[keyName(encrypted)]++
	r.rewritten++
	_, err = r.client.Txn(ctx).
		If(clientv3.Compare(clientv3.ModRevision(key), "=", revision)).
		Then(clientv3.OpPut(key, string(encrypted), clientv3.WithLease(clientv3.LeaseID(lease)))).
		Commit()
	return err
}

// keyName returns the name of the key that encrypted a value. A value may have any content, and the name becomes a label of a
// metric.
func keyName(stored []byte) string {
	rest, isSecretbox := bytes.CutPrefix(stored, secretboxPrefix)
	name, _, found := bytes.Cut(rest[:min(len(rest), maxKeyName+1)], []byte(":"))
	switch {
	case isSecretbox && found && len(name) > 0 && !bytes.ContainsFunc(name, notInName):
		return string(name)
	case bytes.HasPrefix(stored, encryptedPrefix):
		return Other
	}
	return Unencrypted
}

func notInName(r rune) bool {
	return r != '-' && r != '.' && r != '_' && (r < '0' || r > '9') && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z')
}
