package datadir

import (
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"time"

	configv1 "k8s.io/apiserver/pkg/apis/apiserver/v1"
	"sigs.k8s.io/yaml"

	"lanyard.dev/internal/files"
)

// ErrOwnEncryption reports an EncryptionConfiguration of another form than EnsureEncryptionConfig writes. Its author replaces the
// keys.
var ErrOwnEncryption = errors.New("the encryption configuration was written by hand")

// keyNameFormat is the format of the names of keys that replaced others: the time in UTC.
const keyNameFormat = "key-20060102T150405Z"

// EncryptionKey is a key that encrypts secrets in the store.
type EncryptionKey struct {
	Name string
	// Created is when the key was made. For the first key of a directory it is when the file was written.
	Created time.Time
}

// EncryptionKeys returns the keys of EncryptionConfig. The first one encrypts; with the others, earlier values can be read.
func (d *Dir) EncryptionKeys() ([]EncryptionKey, error) {
	config, err := d.readEncryption()
	if err != nil {
		return nil, err
	}
	info, err := os.Stat(d.EncryptionConfig())
	if err != nil {
		return nil, unreadable(d.EncryptionConfig(), err)
	}
	var keys []EncryptionKey
	for _, key := range secretboxKeys(config) {
		created, err := time.Parse(keyNameFormat, key.Name)
		if err != nil {
			created = info.ModTime()
		}
		keys = append(keys, EncryptionKey{key.Name, created})
	}
	return keys, nil
}

// AddEncryptionKey puts a new key before those of EncryptionConfig.
func (d *Dir) AddEncryptionKey(now time.Time) error {
	key, err := newSecretboxKey(now.UTC().Format(keyNameFormat))
	if err != nil {
		return err
	}
	return d.changeEncryption(func(keys []configv1.Key) []configv1.Key { return append([]configv1.Key{key}, keys...) })
}

// DropEncryptionKeys leaves only the first key in EncryptionConfig. Nothing in the store may be encrypted with another one.
func (d *Dir) DropEncryptionKeys() error {
	return d.changeEncryption(func(keys []configv1.Key) []configv1.Key { return keys[:1] })
}

func (d *Dir) changeEncryption(change func([]configv1.Key) []configv1.Key) error {
	config, err := d.readEncryption()
	if err != nil {
		return err
	}
	config.Resources[0].Providers[0].Secretbox.Keys = change(secretboxKeys(config))
	data, err := yaml.Marshal(config)
	if err != nil {
		return fmt.Errorf("encode %s: %w", d.EncryptionConfig(), err)
	}
	if problem := checkEncryptionConfig(data); problem != "" {
		return files.Unusable(d.EncryptionConfig(), problem, nil, restore)
	}
	if err := files.Write(d.EncryptionConfig(), data, 0o600); err != nil {
		return unwritable(d.EncryptionConfig(), err)
	}
	return nil
}

// readEncryption returns ErrOwnEncryption unless the configuration has the form that newEncryptionConfig gives it.
func (d *Dir) readEncryption() (*configv1.EncryptionConfiguration, error) {
	data, err := readFile(d.EncryptionConfig())
	if err != nil {
		return nil, err
	}
	if problem := checkEncryptionConfig(data); problem != "" {
		return nil, files.Unusable(d.EncryptionConfig(), problem, nil, restore)
	}
	var config configv1.EncryptionConfiguration
	if err := yaml.UnmarshalStrict(data, &config); err != nil {
		return nil, files.Unusable(d.EncryptionConfig(), "is corrupt", nil, restore)
	}
	if len(config.Resources) != 1 || len(config.Resources[0].Providers) == 0 {
		return nil, ErrOwnEncryption
	}
	for i, provider := range config.Resources[0].Providers {
		if i == 0 && (provider.Secretbox == nil || len(provider.Secretbox.Keys) == 0) || i > 0 && provider.Identity == nil {
			return nil, ErrOwnEncryption
		}
	}
	return &config, nil
}

func secretboxKeys(config *configv1.EncryptionConfiguration) []configv1.Key {
	return config.Resources[0].Providers[0].Secretbox.Keys
}

func newSecretboxKey(name string) (configv1.Key, error) {
	key := make([]byte, secretboxKeySize)
	if _, err := rand.Read(key); err != nil {
		return configv1.Key{}, fmt.Errorf("generate an encryption key: %w", err)
	}
	return configv1.Key{Name: name, Secret: base64.StdEncoding.EncodeToString(key)}, nil
}
