// Package encryption encrypts what is stored, as a file with an EncryptionConfiguration says, and rewrites what is stored with
// an earlier key.
//
// It does not decide when a key is replaced, and writes no file.
package encryption

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"

	"k8s.io/apiserver/pkg/server/healthz"
	"k8s.io/apiserver/pkg/server/options/encryptionconfig"
	encryptionmetrics "k8s.io/apiserver/pkg/server/options/encryptionconfig/metrics"
	"k8s.io/apiserver/pkg/storage/value"
)

// Encryption encrypts the values of the resources that a file names.
type Encryption struct {
	file, serverID string
	transformers   *encryptionconfig.DynamicTransformers

	mu   sync.Mutex
	hash string // of the file that is in force

	stored atomic.Pointer[map[string]int]
}

// Open reads the file. Connections to plugins end with ctx. The health checks are those of plugins.
func Open(ctx context.Context, file, serverID string) (*Encryption, []healthz.HealthChecker, error) {
	loaded, err := encryptionconfig.LoadEncryptionConfig(ctx, file, false, serverID)
	if err != nil {
		return nil, nil, err
	}
	encryptionmetrics.RecordEncryptionConfigLastConfigInfo(serverID, loaded.EncryptionFileContentHash)
	e := &Encryption{
		file: file, serverID: serverID, hash: loaded.EncryptionFileContentHash,
		transformers: encryptionconfig.NewDynamicTransformers(loaded.Transformers, nil, func() {}, 0),
	}
	return e, loaded.HealthChecks, nil
}

// Transformers returns the encryption of each resource. It follows Reload.
func (e *Encryption) Transformers() value.ResourceTransformers { return e.transformers }

// Reload reads the file again. If it has changed, what is written from now on is encrypted as it says. After an error, the
// encryption stays as it was. A file that names plugins is not supported: their health checks would stay those of Open.
func (e *Encryption) Reload(ctx context.Context) (changed bool, err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	loaded, err := encryptionconfig.LoadEncryptionConfig(ctx, e.file, false, e.serverID)
	switch {
	case err != nil:
		return false, fmt.Errorf("read %s again: %w", e.file, err)
	case len(loaded.HealthChecks) > 0:
		return false, fmt.Errorf("read %s again: a file that names plugins is read at the start only", e.file)
	case loaded.EncryptionFileContentHash == e.hash:
		return false, nil
	}
	e.transformers.Set(loaded.Transformers, func() {}, nil, 0)
	e.hash = loaded.EncryptionFileContentHash
	encryptionmetrics.RecordEncryptionConfigLastConfigInfo(e.serverID, e.hash)
	return true, nil
}
